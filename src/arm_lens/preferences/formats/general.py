r"""TRL's format of preference data, which is the general one, and HH-RLHF's, a special case of it.

Four forms are recognised by the columns that have a value:

- a pair: ``prompt``, ``chosen``, ``rejected``;
- a pair with an implicit prompt: ``chosen`` and ``rejected`` are whole conversations, and the prompt is what they begin
  with in common. For messages it ends before the first one that differs, as in TRL; for transcripts in the style of
  HH-RLHF (``\n\nHuman: ...\n\nAssistant: ...``) it ends before the last ``\n\nAssistant:`` that both share;
- a labelled response: ``prompt``, ``completion`` (or ``response``, or ``text``), ``label``;
- two responses and which of them won: ``prompt``, ``response_a``, ``response_b``, ``winner``.

The last two need no prompt: if no row has one, the prompt is empty. What labels and winners mean is declared
(`arm_lens.preferences.verdicts`). A column ``image`` or ``images`` has the images that a row is about
(`arm_lens.preferences.formats.vision`).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from itertools import takewhile
from typing import Any

from arm_lens.preferences.fields import PreferenceFieldError, short_repr
from arm_lens.preferences.files import JsonError, parse_json
from arm_lens.preferences.formats.registry import Format
from arm_lens.preferences.formats.rows import Part, Record
from arm_lens.preferences.formats.vision import IMAGE_COLUMNS, with_images
from arm_lens.preferences.messages import Message, as_prompt, text_of
from arm_lens.preferences.types import Preference, TiedPair

GENERAL = "trl"
"""The only format whose columns can be renamed."""

COLUMNS = (
    *("prompt", "chosen", "rejected", "response_a", "response_b", "winner"),
    *("completion", "response", "text", "label", "criterion", "id", "metadata", *IMAGE_COLUMNS),
)
"""The columns with a meaning; all others are metadata."""

EXPECTED = (
    "prompt, chosen, rejected (no prompt if both begin with it); prompt, response_a, response_b, winner; "
    "or prompt, completion, label (no prompt for texts that are classified: text, label)"
)

RESPONSES = ("completion", "response", "text")
"""The columns that a response may be in."""
COMPARED = frozenset({"response_a", "response_b"})
PAIR = frozenset({"chosen", "rejected"})

_ASIDE = ("criterion", "id", "metadata", *IMAGE_COLUMNS)
_TRANSCRIPT_ROLES = {"Human": "user", "Assistant": "assistant"}
_TURN = re.compile(r"\n\n(Human|Assistant):")


def _read_trl(record: Record) -> list[Preference | TiedPair]:
    filled = record.filled()
    if not isinstance(filled.get("criterion", ""), str):
        raise PreferenceFieldError("criterion", f"is {short_repr(filled['criterion'])}, not text")
    texts = {"pair": PAIR, "compared": COMPARED, "response": RESPONSES}[form := _form_of(filled)]
    record = with_images(record, responses=sorted(texts))
    return [_READ[form](record, record.filled())]


def _read_hh_rlhf(record: Record) -> list[Preference | TiedPair]:
    """A pair of transcripts that share all but the last answers."""
    chosen, rejected = (_content(record, name) for name in ("chosen", "rejected"))
    for name, text in (("chosen", chosen), ("rejected", rejected)):
        if not isinstance(text, str):
            raise PreferenceFieldError(name, "is not a transcript")
    if "prompt" in record.filled():
        raise PreferenceFieldError("prompt", "is given although the transcripts include the prompt")
    return [record.preference(_split(("chosen", "rejected"), chosen, rejected), id=record.text("id"), used=("id",))]


def _form_of(filled: Mapping[str, Any]) -> str:
    """Which form a row has; a row that could have several is refused."""
    pair, compared, single = PAIR & filled.keys(), COMPARED & filled.keys(), not filled.keys().isdisjoint(RESPONSES)
    is_single = single and "label" in filled
    complete = {"pair": len(pair) == 2, "compared": len(compared) == 2, "response": is_single}
    forms = [form for form, is_complete in complete.items() if is_complete]
    if len(forms) > 1:
        described = {
            "pair": "a pair (chosen, rejected)",
            "compared": "two responses to choose from (response_a, response_b)",
            "response": "a labelled response (label)",
        }
        raise PreferenceFieldError("", f"could be {described[forms[0]]} as well as {described[forms[1]]}")
    if not (pair or compared or single or "label" in filled):
        found = ", ".join(filled) or "no column"
        raise PreferenceFieldError("", f"is not a preference: it has values for {found}; expected {EXPECTED}"[:1000])
    return forms[0] if forms else "pair" if pair else "compared" if compared else "response"


def text_is_response(filled: Iterable[Collection[str]], columns: Collection[str]) -> bool:
    """Whether ``text`` may be the response: no row has a value for another column of responses, and none is declared."""
    return not any(name in cells for cells in (*filled, columns) for name in RESPONSES[:2])


def response_column(record: Record) -> str:
    """The column with the response that is labelled or scored; if it has no value, the one that it should be in.

    Raises:
        PreferenceFieldError: if there are two.
    """
    filled, text = record.filled(), record.reading.text_is_response
    named = [name for name in RESPONSES[:2] if name in filled]
    if len(named) > 1:
        raise PreferenceFieldError("response", "is given twice, as completion and as response")
    if named or (text and "text" in filled):
        return named[0] if named else "text"
    known = {*record.cells, *record.reading.columns}
    return next((name for name in (RESPONSES if text else RESPONSES[:2]) if name in known), RESPONSES[0])


def _read_pair(record: Record, filled: Mapping[str, Any]) -> Preference | TiedPair:
    parts = _two_responses(record, filled, ("chosen", "rejected"), has_prompt="prompt" in filled)
    used = list(parts)
    if record.reading.has_winners:
        parts, used = _decided(record, filled, parts, ("chosen", "rejected")), [*used, "winner"]
    return record.make(parts, _metadata(record, filled, used), id=record.text("id"))


def _read_compared(record: Record, filled: Mapping[str, Any]) -> Preference | TiedPair:
    names = ("response_a", "response_b")
    has_prompt = record.reading.has_prompts or "prompt" in filled
    parts = _two_responses(record, filled, names, has_prompt=has_prompt, may_lack_prompt=True)
    metadata = _metadata(record, filled, [*parts, "winner"])
    return record.make(_decided(record, filled, parts, names), metadata, id=record.text("id"))


def _two_responses(
    record: Record,
    filled: Mapping[str, Any],
    names: tuple[str, str],
    *,
    has_prompt: bool,
    may_lack_prompt: bool = False,
) -> dict[str, Part]:
    """The prompt and the two responses, which may be whole conversations that begin with the prompt."""
    first, second = (_content(record, name) for name in names)
    given = _content(record, "prompt") if has_prompt else None
    are_conversations = _begins_conversation(first) and _begins_conversation(second)
    if not are_conversations and (given is not None or may_lack_prompt):
        if given is None and record.reading.has_images:
            raise PreferenceFieldError("image", "is missing")
        return _parts("" if given is None else given, names, first, second)
    parts = _split(names, first, second)
    # If the conversations include the prompt, a prompt column must repeat it, or its last message.
    if given is not None:
        prompt = as_prompt("prompt", parts["prompt"].value)
        if given not in (parts["prompt"].value, text_of(prompt), text_of(prompt[-1:])):
            raise PreferenceFieldError("prompt", f"differs from the conversation that {' and '.join(names)} begin with")
    return parts


def _decided(
    record: Record, filled: Mapping[str, Any], parts: Mapping[str, Part], ours: tuple[str, str]
) -> dict[str, Part]:
    """The prompt and the two responses, by the names that the winner gives them."""
    if "winner" not in filled:
        raise PreferenceFieldError("winner", "is missing")
    reading, (first, second) = record.reading, ours
    names = (reading.columns.get(first, first), reading.columns.get(second, second))
    winner = reading.verdicts.winner_of("winner", filled["winner"], names)
    decided: Any = record.compared(parts[first], parts[second], winner, "the winner is a tie")
    return {"prompt": parts["prompt"], **decided}


def _read_response(record: Record, filled: Mapping[str, Any]) -> Preference | TiedPair:
    name = response_column(record)
    response = Part(name, _content(record, name))
    parts = {"prompt": Part("prompt", _prompt(record)), "response": response}
    if "label" not in filled:
        raise PreferenceFieldError("label", "is missing")
    label = record.reading.verdicts.label("label", filled["label"])
    return record.make(parts, _metadata(record, filled, ("prompt", name, "label")), label=label, id=record.text("id"))


_READ: dict[str, Callable[[Record, Mapping[str, Any]], Preference | TiedPair]] = {
    "pair": _read_pair,
    "compared": _read_compared,
    "response": _read_response,
}


def _content(record: Record, field: str) -> Any:
    """A prompt or response: text, or messages."""
    if field not in record.filled():
        raise PreferenceFieldError(field, "is missing")
    return record.part(field).value


def _prompt(record: Record) -> Any:
    """The prompt; empty if no row of the source has one, or an image."""
    if record.reading.has_prompts or "prompt" in record.filled():
        return _content(record, "prompt")
    if record.reading.has_images:
        raise PreferenceFieldError("image", "is missing")
    return ""


def _parts(prompt: Any, names: tuple[str, str], first: Any, second: Any) -> dict[str, Part]:
    return {"prompt": Part("prompt", prompt), names[0]: Part(names[0], first), names[1]: Part(names[1], second)}


def _begins_conversation(response: object) -> bool:
    """Whether a response is a conversation that begins with the prompt, as in UltraFeedback (which also has a prompt)."""
    first = response[0] if isinstance(response, list) and response else None
    return isinstance(first, dict) and first.get("role") not in (None, "assistant")


def _split(names: tuple[str, str], first: Any, second: Any) -> dict[str, Part]:
    """The prompt that two conversations begin with, and the rest of each conversation."""
    described = " and ".join(names)
    if isinstance(first, list) and isinstance(second, list):
        end = _n_shared(first, second) - (first == second)
        if end < 1:
            raise PreferenceFieldError("prompt", f"is missing, and {described} share no first message")
        return _parts(first[:end], names, first[end:], second[end:])
    if not (isinstance(first, str) and isinstance(second, str)):
        raise PreferenceFieldError("prompt", f"is missing, and {described} are not both texts or both messages")
    first, second = ("\n\n" + text.lstrip() for text in (first, second))
    shared = first[: _n_shared(first, second)]
    end = shared.rfind("\n\nAssistant:")
    if end <= 0 or not shared.startswith("\n\nHuman:"):
        reason = "are not transcripts (Human: ... Assistant: ...) that begin with it"
        raise PreferenceFieldError("prompt", f"is missing, and {described} {reason}")
    return _parts(_turns(shared[:end]), names, _turns(first[end:]), _turns(second[end:]))


def _n_shared(first: Sequence[Any], second: Sequence[Any]) -> int:
    """The length of the longest common prefix."""
    return sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], zip(first, second, strict=False)))


def _turns(transcript: str) -> list[Message]:
    """The messages of a transcript; consecutive turns of one speaker are not merged."""
    _, *parts = _TURN.split(transcript)
    return [
        Message(role=_TRANSCRIPT_ROLES[speaker], content=content.strip())
        for speaker, content in zip(parts[::2], parts[1::2], strict=True)
    ]


def _metadata(record: Record, filled: Mapping[str, Any], used: Collection[str]) -> dict[str, Any]:
    """The contents of a ``metadata`` column, and all columns without a meaning of their own."""
    columns = {column: cell for column, cell in filled.items() if column not in {*used, *_ASIDE}}
    metadata = filled.get("metadata", {})
    if isinstance(metadata, str) and metadata.startswith("{"):
        try:
            metadata = parse_json(metadata.encode())
        except (JsonError, UnicodeEncodeError) as error:
            raise PreferenceFieldError("metadata", f"looks like a JSON object, but is not: {error}") from error
    if not isinstance(metadata, dict):
        metadata = {record.reading.columns.get("metadata", "metadata"): metadata}
    twice = columns.keys() & metadata.keys()
    if twice:
        raise PreferenceFieldError("metadata", f"has {min(twice)!r}, which is also a column")
    return {**metadata, **columns}


FORMATS = (
    Format(
        name=GENERAL,
        title="TRL and Hugging Face: prompt, chosen, rejected; prompt, response_a, response_b, winner; or text, label",
        fields=(
            frozenset({"chosen", "rejected"}),
            frozenset({"prompt", "completion", "label"}),
            frozenset({"prompt", "response", "label"}),
            frozenset({"response_a", "response_b", "winner"}),
            frozenset({"completion", "label"}),
            frozenset({"response", "label"}),
            frozenset({"text", "label"}),
        ),
        read=_read_trl,
    ),
    Format(
        name="hh-rlhf",
        title="HH-RLHF (Bai et al. 2022, arXiv 2204.05862): transcripts; unless named, read as TRL's implicit prompts",
        fields=(frozenset({"chosen", "rejected"}),),
        by_name_only=True,
        read=_read_hh_rlhf,
    ),
)
