"""docs/howto/images.md: what its code takes for granted."""

from __future__ import annotations

import json

import vision_models


def prepare(page):
    """Write the files of the page; give what stands for the names of models."""
    rows = []
    for number in range(6):
        vision_models.picture(number).save(page.folder / f"{number}.png")
        rows.append({"image": f"{number}.png", "prompt": "What is it?", "response": f"A cat {number}.", "label": True})
        rows.append({"image": f"{number}.png", "prompt": "What is it?", "response": f"Dogs {number}.", "label": False})
    vision_models.picture(99).save(page.folder / "cat.png")
    (page.folder / "pictures.jsonl").write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    return {"llava-hf/llava-1.5-7b-hf": str(vision_models.save("llava", page.cache / "random-llava"))}
