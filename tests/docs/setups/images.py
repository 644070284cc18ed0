"""docs/images.md: a reader has pictures, and examples that were held out."""

from __future__ import annotations

import json

import vision_models

from arm_lens import read_preferences

GIVEN = ("held_out",)


def prepare(page):
    """Write the files of the page; give what stands for the names of models."""
    rows = []
    for number in range(14):
        vision_models.picture(number).save(page.folder / f"{number}.png")
        chosen, rejected = f"A cat {number}.", f"Dogs {number}."
        rows.append({"image": f"{number}.png", "prompt": "What is it?", "chosen": chosen, "rejected": rejected})
    vision_models.picture(99).save(page.folder / "cat.png")
    for name, some in {"pairs": rows[:8], "held_out": rows[8:]}.items():
        (page.folder / f"{name}.jsonl").write_text("\n".join(map(json.dumps, some)), encoding="utf-8")
    page.names["held_out"] = read_preferences(page.folder / "held_out.jsonl")
    return {"llava-hf/llava-onevision-qwen2-7b-ov-hf": str(vision_models.save("llava", page.cache / "random-llava"))}
