"""Benchmarks of answers about images: Multimodal RewardBench and VL-RewardBench."""

from __future__ import annotations

from dataclasses import replace

from arm_lens.preferences.fields import PreferenceFieldError, short_repr
from arm_lens.preferences.formats.registry import Format
from arm_lens.preferences.formats.rows import Record
from arm_lens.preferences.formats.vision import with_images
from arm_lens.preferences.types import Preference, TiedPair

_OUTPUTS = frozenset({"Text", "Output1", "Output2"})
_PARTS = {
    "safety": ("pairs", "safety/bias", "safety/toxicity"),
    "reasoning": ("math", "reasoning/math", "reasoning/coding"),
}
"""Categories of Multimodal RewardBench in two parts: how the ids of the first one begin, and both names."""
_GROUPS = {
    **{"mathverse": "reasoning", "mmmu": "reasoning", "reasoning_tasks": "reasoning"},
    **{"hallucination": "hallucination", "rlhf": "hallucination", "rlaif": "hallucination", "povid": "hallucination"},
}
"""By how the ids of VL-RewardBench begin, or by the folder of the image; the others are general."""


def _read_multimodal_rewardbench(record: Record) -> list[Preference | TiedPair]:
    """A pair about an image, whose path is relative to the folder of the file; the subset is the category."""
    better = record.choice("Better" if "Better" in record.cells else "label", ("Output1", "Output2"))
    worse = "Output2" if better == "Output1" else "Output1"
    category, id = record.text("Category"), record.text("ID")
    if category in _PARTS:
        begin, first, second = _PARTS[category]
        category = first if id.lower().startswith(begin) else second
    path = record.filled().get("Image", "")
    pair = _about_image(record, "Image", "Text").preference(
        {"prompt": "Text", "chosen": better, "rejected": worse},
        id=id,
        used=("ID", "Category", "Image"),
        known={"subset": category, "image": path if isinstance(path, str) and path[:5] != "data:" else ""},
    )
    return [pair]


def _read_vl_rewardbench(record: Record) -> list[Preference | TiedPair]:
    """A pair about an image; the better response has rank 0. Ids are not unique, so the rows' numbers are appended."""
    responses = record.answers("response")
    ranks = [part.value for part in record.answers("human_ranking")]
    if len(responses) != 2:
        raise PreferenceFieldError("response", f"has {len(responses)} responses, not two")
    if sorted(map(str, ranks)) != ["0", "1"]:
        raise PreferenceFieldError("human_ranking", f"is {short_repr(ranks)}, not [0, 1] or [1, 0]")
    first, second = responses if str(ranks[0]) == "0" else reversed(responses)
    id, path = record.text("id", required=True), record.filled().get("image_path", "")
    begin = path.split("/")[-2] if isinstance(path, str) and "/" in path else id
    group = _GROUPS.get(begin.lower() if begin in _GROUPS else begin.replace("_", "-").split("-")[0].lower(), "general")
    column = "image" if "image" in record.filled() else "image_path"
    query = record.given("query")
    if isinstance(query, str):  # a place for the image, which some queries have
        record = replace(record, cells={**record.cells, "query": query.replace("<image>\n", "")})
    pair = _about_image(record, column, "query").preference(
        {"prompt": "query", "chosen": first, "rejected": second},
        id=f"{id}:{record.number}",
        used=("image", "human_ranking"),
        known={"subset": group},
    )
    return [pair]


def _about_image(record: Record, column: str, prompt: str) -> Record:
    """The row with its image in its prompt.

    Raises:
        PreferenceFieldError: if it has none.
    """
    if column not in record.filled():
        raise PreferenceFieldError(column, "is missing")
    return with_images(record, columns=(column,), prompt=prompt)


FORMATS = (
    Format(
        name="multimodal-rewardbench",
        title="Multimodal RewardBench (Yasunaga et al. 2025, arXiv 2502.14191): all_data.json, with the images next to it",
        fields=(_OUTPUTS | {"Better"}, _OUTPUTS | {"label"}),
        read=_read_multimodal_rewardbench,
    ),
    Format(
        name="vl-rewardbench",
        title="VL-RewardBench (Li et al. 2024, arXiv 2411.17451): two responses about an image, ranked by people",
        fields=(frozenset({"query", "response", "human_ranking"}),),
        read=_read_vl_rewardbench,
    ),
)
