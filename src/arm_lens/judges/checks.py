"""Checks of what a judge is given, and of what it says: texts, lengths, numbers that are finite, examples left out."""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import TYPE_CHECKING, Any, TypeAlias

import torch
from jaxtyping import Float
from torch import Tensor

from arm_lens.display.caution import caution
from arm_lens.engine.finite import NotFiniteError
from arm_lens.engine.verdict_tokens import VerdictScores
from arm_lens.judges.questions import listed_names
from arm_lens.preferences import Prompt
from arm_lens.preferences.images import as_image
from arm_lens.preferences.messages import ReadImage, check_unicode, messages_of

if TYPE_CHECKING:
    Texts: TypeAlias = Sequence[Prompt | Sequence[Mapping[str, Any]]]
    """Prompts or responses, one for each example: text, or the messages of a conversation."""
else:
    Texts: TypeAlias = object  # anything else is refused by `checked_text`, not by a run-time type checker


class SkippedWarning(UserWarning):
    """Examples could not be judged and have no score: they are too long, or are not texts."""


def check_pairs(prompts: Texts, a: Texts, b: Texts) -> tuple[list[Prompt], list[Prompt], list[Prompt]]:
    """Raise a ValueError unless each prompt has two responses and all are texts; messages are reduced to role and text."""
    if not len(prompts) == len(a) == len(b):
        raise ValueError(f"{len(prompts)} prompts for {len(a)} first and {len(b)} second responses")
    fields = {"prompt": prompts, "first response": a, "second response": b}
    first, second, third = (_checked_texts(texts, field, "pair") for field, texts in fields.items())
    return first, second, third


def check_as_many(prompts: Texts, responses: Texts) -> tuple[list[Prompt], list[Prompt]]:
    """Raise a ValueError unless each prompt has a response and all are texts; messages are reduced to role and text."""
    check_lengths(prompts, responses)
    return _checked_texts(prompts, "prompt", "example"), _checked_texts(responses, "response", "example")


def check_lengths(prompts: Sequence[Any], responses: Sequence[Any]) -> None:
    """Raise a ValueError unless there are as many prompts as responses, in lists and not in one text."""
    for name, texts in (("prompts", prompts), ("responses", responses)):
        if isinstance(texts, str):
            raise ValueError(f"the {name} are one text; pass a list of texts, [{texts[:20]!r}, ...]")
    if len(prompts) != len(responses):
        raise ValueError(f"{len(prompts)} prompts for {len(responses)} responses")


def _checked_texts(texts: Texts, field: str, row: str) -> list[Prompt]:
    return [checked_text(one, f"{row} {number}: the {field}") for number, one in enumerate(texts)]


def checked_text(value: object, field: str, read_image: ReadImage = as_image) -> Prompt:
    """The text, or the messages, each reduced to a role and a text (`arm_lens.preferences.messages`).

    Args:
        value: text or messages.
        field: what errors call it.
        read_image: how the images of messages are read.

    Raises:
        PreferenceFieldError: a ValueError that names the field, if it is neither, or has half of a character.
    """
    if not isinstance(value, str):
        return messages_of(field, value, read_image)
    check_unicode(field, value)
    return value


def check_kind(kind: str, known: Collection[str], judge: str) -> None:
    """Raise a ValueError that names the judge, unless the kind of score is one that it gives."""
    if kind not in known:
        raise ValueError(f"{judge} gives scores of the kinds {', '.join(map(repr, known))}, not {kind!r}")


def checked(values: Tensor, names: Sequence[str] | str) -> Tensor:
    """The values, if all are finite; each belongs to one name, or to the number of a row of that name.

    Raises:
        NotFiniteError: naming the first row that has another value.
    """
    finite = values.isfinite().reshape(len(values), -1).all(dim=1)
    if not finite.all():
        first = int((~finite).nonzero()[0])
        name = f"{names} {first}" if isinstance(names, str) else names[first]
        raise NotFiniteError(
            f"{name}: the model computes a number that is infinite or not a number; its activations may exceed the dtype: "
            "load it with dtype=torch.bfloat16 or torch.float32"
        )
    return values


def warn_of_skipped(reasons: Mapping[str, str]) -> None:
    """Warn that examples, by name, have no score, and quote the reason of the first."""
    names = list(dict.fromkeys(reasons))
    caution(f"{listed_names(names)}: no score (NaN); {reasons[names[0]]}", SkippedWarning)


def scattered_verdicts(found: VerdictScores | None, count: int, left_out: Collection[int]) -> VerdictScores:
    """Verdicts on questions of which some were left out; those are NaN."""
    rest = [number for number in range(count) if number not in left_out]

    def scattered(name: str) -> Float[Tensor, " question"]:
        values = torch.full((count,), torch.nan)
        if found is not None:
            values[rest] = getattr(found, name).to(values)
        return values

    return VerdictScores(
        scattered("probability"),
        scattered("two_way"),
        scattered("gap"),
        scattered("log_positive"),
        scattered("log_negative"),
        preferred=() if found is None else found.preferred,
    )


def scores_of_rest(
    prompts: Texts,
    responses: Texts,
    left_out: Mapping[int, str],
    score: Callable[[Texts, Texts], Float[Tensor, " example"]],
) -> Float[Tensor, " example"]:
    """Scores of all examples except those that are left out, which are NaN, with a warning."""
    if not left_out:
        return score(prompts, responses)
    warn_of_skipped({f"example {number}": reason for number, reason in left_out.items()})
    prompts, responses = list(prompts), list(responses)  # a column of a table counts its rows in a way of its own
    rest = [number for number in range(len(prompts)) if number not in left_out]
    scores = torch.full((len(prompts),), torch.nan, dtype=torch.float64)
    if rest:
        try:
            found = score([prompts[number] for number in rest], [responses[number] for number in rest])
        except Exception as error:  # which numbers the examples that it was given
            said = re.sub(r"(?<=^example )\d+", lambda place: str(rest[int(place[0])]), str(error))
            error.args = (said, *error.args[1:])
            raise
        scores = scores.to(found.dtype)
        scores[rest] = found
    return scores
