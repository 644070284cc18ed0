"""RewardBench, RewardBench 2, RM-Bench and their relatives: better and worse answers to a prompt.

RewardBench 2 has a list of correct and a list of incorrect answers to each prompt. Every correct answer is paired with
every incorrect one: one correct and three incorrect answers make three pairs. The pairs of a prompt share
``metadata["item"]``, and their ids say which answers they compare (`pair_id`), so that the score of the prompt (best of
four, or that of the Ties subset) can be computed from the margins of its pairs (`arm_lens.evaluation.rewardbench`). If
one answer is invalid, the whole prompt is left out: best of three would be a different benchmark.

RM-Bench has three correct and three incorrect answers in the styles concise, detailed, and detailed with Markdown, in this
order. They are paired and named in the same way, and ``metadata["level"]`` says how hard the pair is: *hard* if the incorrect
answer is in the more elaborate style, *normal* if both are in one style, *easy* if the correct answer is in the more
elaborate one. `arm_lens.evaluation.rm_bench` computes its scores.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from arm_lens.preferences.fields import PreferenceFieldError
from arm_lens.preferences.files import JsonError, parse_json
from arm_lens.preferences.formats.registry import Format
from arm_lens.preferences.formats.rows import Record
from arm_lens.preferences.types import Preference, TiedPair

_PAIR_ID = re.compile(r"(.+)/(\d+)-(\d+)")


def pair_id(item: str, chosen: int, rejected: int) -> str:
    """The id of a pair: the item, and the numbers of its chosen and its rejected answer, counted from 1."""
    return f"{item}/{chosen}-{rejected}"


def split_pair_id(id: str) -> tuple[str, int, int]:
    """The inverse of `pair_id`.

    Raises:
        ValueError: if the id does not have that form.
    """
    match = _PAIR_ID.fullmatch(id)
    if match is None:
        raise ValueError(f"the id {id!r} is not that of a RewardBench 2 pair, such as item/1-1")
    item, chosen, rejected = match.groups()
    return item, int(chosen), int(rejected)


def _read_rewardbench(record: Record) -> list[Preference | TiedPair]:
    """A pair. Ids are not unique across the published copies of the data, so the subset is put before them."""
    subset, id = record.text("subset", required=True), record.text("id")
    parts = {name: name for name in ("prompt", "chosen", "rejected")}
    used_id = f"{subset}/{id}" if id else ""
    return [record.preference(parts, id=used_id, used=("id", "subset"), known={"subset": subset})]


def _read_rewardbench_2(record: Record) -> list[Preference | TiedPair]:
    subset, id = record.text("subset", required=True), record.text("id", required=True)
    prompt, chosen, rejected = record.part("prompt"), record.answers("chosen"), record.answers("rejected")
    for field, n in (("num_correct", len(chosen)), ("total_completions", len(chosen) + len(rejected))):
        if record.text(field) not in ("", str(n)):
            raise PreferenceFieldError(field, f"is {record.text(field)}, but there are {n}")
    item = f"{subset}/{id}"
    return [
        record.preference(
            {"prompt": prompt, "chosen": better, "rejected": worse},
            id=pair_id(item, number, other),
            used=("id", "subset"),
            known={"subset": subset, "item": item},
        )
        for number, better in enumerate(chosen, start=1)
        for other, worse in enumerate(rejected, start=1)
    ]


def _read_m_rewardbench(record: Record) -> list[Preference | TiedPair]:
    """A pair; ids are unique within a language and subset."""
    language = record.text("language", required=True)
    subset = record.text("subset") or record.text("source")
    parts = {name: name for name in ("prompt", "chosen", "rejected")}
    id = "/".join(part for part in (language, subset, record.text("id")) if part) if record.text("id") else ""
    known = {"subset": subset, "language": language}
    return [record.preference(parts, id=id, used=("id", "subset", "source", "language"), known=known)]


STYLES = ("concise", "detailed", "detailed with Markdown")
"""The styles of RM-Bench's answers, in their order."""


def level_of(chosen: int, rejected: int) -> str:
    """How hard a pair of RM-Bench is, by the numbers of its styles."""
    return "normal" if chosen == rejected else "hard" if chosen < rejected else "easy"


def _read_rm_bench(record: Record) -> list[Preference | TiedPair]:
    prompt, chosen, rejected = record.part("prompt"), record.answers("chosen"), record.answers("rejected")
    for field, answers in (("chosen", chosen), ("rejected", rejected)):
        if len(answers) != len(STYLES):
            raise PreferenceFieldError(field, f"has {len(answers)} answers, not one in each of {len(STYLES)} styles")
    item = record.text("id") or f"row {record.number}"
    subset = record.text("domain")
    return [
        record.preference(
            {"prompt": prompt, "chosen": better, "rejected": worse},
            id=pair_id(item, number, other),
            used=("id", "domain"),
            known={"subset": subset, "item": item, "level": level_of(number, other)},
        )
        for number, better in enumerate(chosen, start=1)
        for other, worse in enumerate(rejected, start=1)
    ]


def _has_styles(cells: Mapping[str, Any]) -> bool:
    """Whether chosen and rejected are lists of as many texts as there are styles, or JSON text of such lists."""

    def is_list(value: Any) -> bool:
        if isinstance(value, str) and value.startswith("["):
            try:
                value = parse_json(value.encode())
            except (JsonError, UnicodeEncodeError):
                return False
        return isinstance(value, list) and len(value) == len(STYLES) and all(isinstance(item, str) for item in value)

    return is_list(cells.get("chosen")) and is_list(cells.get("rejected"))


FORMATS = (
    Format(
        name="rewardbench",
        title="RewardBench (Lambert et al. 2024, arXiv 2403.13787)",
        fields=(frozenset({"prompt", "chosen", "rejected", "subset"}),),
        distinguishing=frozenset({"chosen_model", "rejected_model"}),
        read=_read_rewardbench,
    ),
    Format(
        name="rewardbench-2",
        title="RewardBench 2 (Malik et al. 2025, arXiv 2506.01937): one best of four, or several right answers (Ties)",
        fields=(frozenset({"id", "prompt", "chosen", "rejected", "subset"}),),
        distinguishing=frozenset({"num_correct"}),
        read=_read_rewardbench_2,
    ),
    Format(
        name="m-rewardbench",
        title="M-RewardBench (Gureja et al. 2024, arXiv 2410.15522): RewardBench in 23 languages",
        fields=(
            frozenset({"prompt", "chosen", "rejected", "language"}),
            frozenset({"prompt", "chosen", "rejected", "language", "subset"}),
        ),
        distinguishing=frozenset({"chosen_model", "rejected_model", "id"}),
        read=_read_m_rewardbench,
    ),
    Format(
        name="rm-bench",
        title="RM-Bench (Liu et al. 2024, arXiv 2410.16184): three styles of a correct and of an incorrect answer",
        fields=(frozenset({"prompt", "chosen", "rejected"}),),
        fits=_has_styles,
        read=_read_rm_bench,
    ),
)
