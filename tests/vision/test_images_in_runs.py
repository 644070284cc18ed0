"""Benchmarks, scores and attribution of prompts with images, from files to tables."""

from __future__ import annotations

import json

import pandas as pd
import pytest
import torch
from PIL import Image as Pillow
from vision_examples import EXAMPLES, arm
from vision_models import FAMILIES, picture, save

from arm_lens.attribution import ablation, attribute, head_card
from arm_lens.benchmark import BenchmarkConfig, BenchmarkConfigError, run_benchmark
from arm_lens.plots import image_attention_figure
from arm_lens.preferences.images import as_image
from arm_lens.reward.scoring import score_file

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Pictures and a file of labelled responses about them, and a model."""
    folder = tmp_path_factory.mktemp("run")
    (folder / "pictures").mkdir()
    rows = []
    for number in range(24):
        picture(number).save(folder / "pictures" / f"{number}.png")
        row = {"prompt": "What is it?", "image": f"pictures/{number}.png", "response": f"answer {number}"}
        rows.append({**row, "label": number % 3 == 0})
    (folder / "data.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    save("llava", folder / "model")
    return folder


def config(folder, **changes):
    return BenchmarkConfig.model_validate({
        "model": str(folder / "model"), "judges": ["zero_shot", "few_shot", "sav", "probe", "arm_top_effect"],
        "lead": "arm_top_effect", "demonstrations": 1, "readings": 3, "n_examples": [8], "samples": 1, "batch_size": 4,
        "studies": [{"kind": "preferences", "name": "pictures", "path": str(folder / "data.jsonl"), "pool": 12}],
        **changes,
    })  # fmt: skip


def test_a_benchmark_of_pictures_gives_the_same_in_one_process_and_in_workers(folder, tmp_path):
    alone = run_benchmark(config(folder), tmp_path / "alone", progress=False)
    both = run_benchmark(config(folder, workers=2), tmp_path / "both", progress=False)
    assert not len(alone.missing) and not len(both.missing)
    pd.testing.assert_frame_equal(alone.items, both.items)
    shares = alone.items.groupby("judge")["reward"].nunique()
    assert (shares.drop("few_shot", errors="ignore") > 1).all()  # the prompts differ in their pictures alone, or nearly


@pytest.mark.parametrize(
    ("judges", "reason"),
    [
        (
            ["length", "zero_shot"],
            "zero_shot on pictures: .* has an image in it, and arm_lens judge model cannot read it",
        ),
        (
            [{"judge": "endpoint", "model": "gpt", "images": False, "api_key_env": None}],
            "endpoint on pictures: .* text only",
        ),
    ],
)
def test_judges_that_cannot_see_are_refused_before_any_part_is_run(judges, reason, folder, tmp_path):
    blind = config(folder, model=None, judges=judges, lead=judges[0] if judges[0] == "length" else "endpoint")
    with pytest.raises(BenchmarkConfigError, match=reason):
        run_benchmark(blind, tmp_path / "run", progress=False)
    assert not list((tmp_path / "run").rglob("*.parquet")) and not (tmp_path / "run" / "failures").exists()


def test_a_judge_that_reads_no_text_stands_on_pictures_beside_a_text_model(folder, tmp_path):
    found = run_benchmark(config(folder, model=None, judges=["length"], lead="length"), tmp_path, progress=False)
    assert len(found.items)


def test_a_file_of_pictures_is_scored_as_the_reward_model_scores_them(folder, seeing_of, tmp_path):
    reward = arm(seeing_of("llava").model)
    saved = reward.save(tmp_path / "reward")
    count = score_file(saved, folder / "data.jsonl", tmp_path / "out.jsonl", load=lambda _: reward, limit=5)
    rows = [json.loads(line) for line in (tmp_path / "out.jsonl").read_text().splitlines()]
    prompts = [[{"role": "user", "content": [
        {"type": "image", "image": picture(number)}, {"type": "text", "text": "What is it?"},
    ]}] for number in range(5)]  # fmt: skip
    expected = reward.score(prompts, [f"answer {number}" for number in range(5)])
    assert count == 5 and [row["reward"] for row in rows] == pytest.approx(expected.tolist(), abs=1e-6)
    assert rows[0]["image"] == "pictures/0.png"


def raw_gaps(seeing, reward, mask):
    """Yes minus No of the raw model for each example, with zeros at some heads at the last token."""
    handles = []
    for layer, projection in enumerate(seeing.outputs()):

        def write(_, inputs, layer=layer):
            z = inputs[0].clone().unflatten(-1, (seeing.model.n_heads, seeing.model.d_head))
            z[:, -1, mask[layer]] = 0
            return (z.flatten(-2),)

        handles.append(projection.register_forward_pre_hook(write))
    try:
        found = []
        for example in EXAMPLES:
            images = [part["image"] for part in asked_content(example) if part["type"] == "image"]
            text = seeing.processor.apply_chat_template(
                [{"role": "user", "content": asked_content(example)}], tokenize=False, add_generation_prompt=True
            )
            inputs = seeing.processor(text=[text], images=[images], add_special_tokens=False, return_tensors="pt")
            with torch.no_grad():
                found.append(seeing.raw(**inputs).logits[0, -1])
    finally:
        for handle in handles:
            handle.remove()
    verdicts = reward.judge.verdict_tokens
    logits = torch.stack(found)
    return torch.logsumexp(logits[:, list(verdicts.positive)], 1) - torch.logsumexp(
        logits[:, list(verdicts.negative)], 1
    )


def asked_content(example):
    """The parts of the question about an example, put by hand."""
    number = int(example.response.split()[1])
    return [
        {"type": "text", "text": "Asked: "},
        {"type": "image", "image": picture(number)},
        {"type": "text", "text": f"\nWhat is it? Said: {example.response} Good?"},
    ]


@pytest.mark.parametrize("family", [one for one in ("llava", "qwen2_5_vl") if one in FAMILIES])
def test_ablations_are_those_of_the_raw_model_and_every_measure_is_finite(family, seeing_of):
    seeing = seeing_of(family)
    reward = arm(seeing.model)
    objective = reward.objective(EXAMPLES)
    found = ablation(objective, "zero")
    signs = torch.tensor([1.0 if one.label else -1.0 for one in EXAMPLES])
    nothing = torch.zeros(seeing.model.n_layers, seeing.model.n_heads, dtype=torch.bool)
    before = raw_gaps(seeing, reward, nothing)
    for layer, head in ((0, 1), (2, 3)):
        mask = nothing.clone()
        mask[layer, head] = True
        lost = (signs * (before - raw_gaps(seeing, reward, mask))).mean()
        assert float(found.values["gap"][layer, head]) == pytest.approx(float(lost), abs=1e-4)
    table = attribute(reward, EXAMPLES, standard_error=0.2)
    assert table["score"].notna().all() and table["measure"].nunique() >= 10
    everywhere = ablation(objective, "mean", positions="all", heads=[(1, 1)])
    assert everywhere.values["gap"][1, 1].isfinite()


@pytest.mark.parametrize("family", sorted(FAMILIES))
def test_a_head_card_says_how_much_goes_to_an_image_and_to_each_of_its_patches(family, seeing_of):
    seeing = seeing_of(family)
    if seeing.model.findings.blind is not None:
        return
    reward = arm(seeing.model)
    card = head_card(reward, (1, 2), EXAMPLES)
    shares = card.attention.groupby("example")["weight"].sum()
    assert shares.tolist() == pytest.approx([1.0] * len(shares), abs=1e-5)
    images = card.attention[card.attention["token"] == "[image 1]"].set_index("example")["weight"]
    assert len(images) == 4
    grouped = card.patches.groupby("example")
    whole = grouped["weight"].sum()
    assert (whole <= images + 1e-6).all() and (whole > 0).all()
    if family in ("llava", "gemma3", "qwen2_5_vl", "qwen3_vl"):  # no tiles: the patches are all that there is
        assert whole.tolist() == pytest.approx(images[whole.index].tolist(), abs=1e-6)
    for _, patches in grouped:
        assert len(patches) == (patches["row"].max() + 1) * (patches["column"].max() + 1)
        assert patches["left"].min() >= 0 and patches["right"].max() <= 1 + 1e-9
    html, figure = card._repr_html_(), image_attention_figure(card)
    assert html.count("<image href=") == 3 and html.count("data:image/png") == 3
    assert len(figure.layout.images) == 4 and "[image 1]" in repr(card)


def changed_tokens(family, before, after):
    """The placeholders whose own pixels differ, among those of the picture of the whole image."""
    if family.startswith("qwen"):  # four patches, one below the other in the tensor, become a token
        off = (before - after).abs().mean(dim=1)
        return set(((off > 0.5 * off.max()).nonzero().flatten() // 4).tolist())
    one, other = (pixels.reshape(-1, *pixels.shape[-3:]) for pixels in (before, after))
    place = -1 if family in ("idefics3", "smolvlm") else 0
    side = {"llava": 4, "llava_next": 4, "llava_onevision": 4, "gemma3": 2, "idefics3": 2, "smolvlm": 2}[family]
    blocks = (
        (one[place] - other[place])
        .abs()
        .amax(dim=0)
        .unfold(0, 16 // side, 16 // side)
        .unfold(1, 16 // side, 16 // side)
    )
    return set((blocks.amax(dim=(2, 3)).flatten() > 0.5 * blocks.max()).nonzero().flatten().tolist())


@pytest.mark.parametrize("family", sorted(FAMILIES))
@pytest.mark.parametrize("size", [(64, 64), (96, 64), (64, 128)])
def test_a_patch_is_where_its_pixels_are(family, size, seeing_of):
    reader = seeing_of(family).model.images
    plain = Pillow.new("RGB", size, (128, 128, 128))
    [seen] = reader.seen_in(reader.encode(as_image(plain).mark))
    patches = seen.patches
    left, top, right, bottom = patches.region
    wide, high = (right - left) / patches.columns, (bottom - top) / patches.rows
    for row, column in ((0, 0), (patches.rows - 1, 0), (patches.rows // 2, patches.columns - 1)):
        marked = plain.copy()
        edges = (left + column * wide, top + row * high, left + (column + 1) * wide, top + (row + 1) * high)
        marked.paste((255, 255, 255), tuple(round(edge * size[axis % 2]) for axis, edge in enumerate(edges)))
        before, after = (
            reader.processor(text=[reader.token], images=[[one]], return_tensors="pt")["pixel_values"].float()
            for one in (plain, marked)
        )
        assert changed_tokens(family, before, after) == {row * patches.columns + column}
