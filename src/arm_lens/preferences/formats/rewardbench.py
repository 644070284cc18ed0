"""RewardBench, RewardBench 2 and Multimodal RewardBench: better and worse answers to a prompt.

RewardBench 2 has a list of correct and a list of incorrect answers to each prompt. Every correct answer is paired with
every incorrect one: one correct and three incorrect answers make three pairs. The pairs of a prompt share
``metadata["item"]``, and their ids say which answers they compare (`pair_id`), so that the score of the prompt (best of
four, or that of the Ties subset) can be computed from the margins of its pairs (`arm_lens.evaluation.rewardbench`). If
one answer is invalid, the whole prompt is left out: best of three would be a different benchmark.
"""

from __future__ import annotations

import re

from arm_lens.preferences.formats.registry import Format
from arm_lens.preferences.formats.rows import Part, Record
from arm_lens.preferences.messages import PreferenceFieldError, short_repr
from arm_lens.preferences.types import Preference

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


def _read_rewardbench(record: Record) -> list[Preference]:
    """A pair. Ids are not unique across the published copies of the data, so the subset is put before them."""
    subset, id = record.text("subset", required=True), record.text("id")
    parts = {name: name for name in ("prompt", "chosen", "rejected")}
    used_id = f"{subset}/{id}" if id else ""
    return [record.preference(parts, id=used_id, used=("id", "subset"), known={"subset": subset})]


def _read_rewardbench_2(record: Record) -> list[Preference]:
    subset, id = record.text("subset", required=True), record.text("id", required=True)
    prompt, chosen, rejected = record.part("prompt"), _answers(record, "chosen"), _answers(record, "rejected")
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


def _answers(record: Record, field: str) -> list[Part]:
    """The answers in a list, each with its number in the field name."""
    value = record.part(field).value
    if not isinstance(value, list):
        raise PreferenceFieldError(field, f"is {short_repr(value)}, not a list of answers")
    if not value:
        raise PreferenceFieldError(field, "has no answer")
    return [Part(f"{field}[{number}]", answer) for number, answer in enumerate(value, start=1)]


def _read_multimodal(record: Record) -> list[Preference]:
    """A pair of texts; only the path of the image is kept."""
    better = record.choice("Better" if "Better" in record.cells else "label", ("Output1", "Output2"))
    worse = "Output2" if better == "Output1" else "Output1"
    pair = record.preference(
        {"prompt": "Text", "chosen": better, "rejected": worse},
        id=record.text("ID"),
        used=("ID", "Category", "Image"),
        known={"subset": record.text("Category"), "image": record.text("Image")},
    )
    return [pair]


_OUTPUTS = frozenset({"Text", "Output1", "Output2"})

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
        name="multimodal-rewardbench",
        title="Multimodal RewardBench (Yasunaga et al. 2025, arXiv 2502.14191): the texts of all_data.json",
        fields=(_OUTPUTS | {"Better"}, _OUTPUTS | {"label"}),
        read=_read_multimodal,
        image="image",
    ),
)
