"""MLPs knocked out, against raw Hugging Face passes with a forward hook, and on the planted model."""

from __future__ import annotations

import pytest
import torch
from conftest import HOOKED
from planted_circuit import BASE, DIRECT, HINDRANCE, planted_circuit
from transformers import AutoModelForCausalLM

from arm_lens.attribution import ablation, layer_ablation
from arm_lens.engine import Replay, VerdictTokens
from arm_lens.selection import JudgingObjective

pytestmark = pytest.mark.tl4

SEQUENCES = [[1, 9, 30, 41, 52], [1, 77, 14], [1, 20, 21, 22, 23, 24, 25], [1, 8, 100, 3]]
LABELS = [True, False, False, True]
VERDICTS = VerdictTokens((5,), (6, 7))
MLP = {"llama": "model.layers.{}.mlp", "gpt2": "transformer.h.{}.mlp", "gpt_neox": "gpt_neox.layers.{}.mlp"}
CLASSES = ["TransformerBridge", *(["HookedTransformer"] if HOOKED else [])]
CASES = [(family, one) for family in MLP for one in CLASSES]  # gpt_neox: attention and MLP are parallel


@pytest.fixture(params=CASES, ids=lambda one: "-".join(one))
def both(request, folder_of, model_of):
    family, model_class = request.param
    model = model_of(family, model_class)
    objective = JudgingObjective(
        Replay(model, SEQUENCES, VERDICTS, batch_size=2), torch.zeros(3, 4, model.cfg.d_head), LABELS
    )
    return AutoModelForCausalLM.from_pretrained(folder_of(family)).eval(), MLP[family], objective


def raw_margin(raw, number, place=None, written=None, seen=None):
    """Log P(right) - log P(wrong) of one prompt by one raw pass, with an MLP's output replaced at the last token."""

    def hook(_, __, output):
        if seen is not None:
            seen.append(output[0, -1].clone())
            return None
        output = output.clone()
        output[0, -1] = written
        return output

    handle = None if place is None else raw.get_submodule(place).register_forward_hook(hook)
    with torch.no_grad():
        logits = raw(torch.tensor([SEQUENCES[number]])).logits[0, -1].double()
    if handle:
        handle.remove()
    gap = logits[5] - logits[[6, 7]].logsumexp(dim=0)
    return gap if LABELS[number] else -gap


@pytest.mark.parametrize("kind", ["zero", "mean", "resample"])
def test_an_mlp_knocked_out_is_what_raw_passes_lose(both, kind):
    raw, name, objective = both
    found = layer_ablation(objective, kind, resamples=3)
    before = torch.stack([raw_margin(raw, number) for number in range(4)])
    for layer in range(3):
        place, seen = name.format(layer), []
        for number in range(4):
            raw_margin(raw, number, place, seen=seen)
        z = torch.stack(seen)
        written = {
            "zero": [[torch.zeros_like(z[0])]] * 4,
            "mean": [[z.mean(dim=0)]] * 4,
            "resample": [[z[other] for other in range(4) if other != number] for number in range(4)],
        }[kind]
        after = torch.stack(
            [torch.stack([raw_margin(raw, number, place, one) for one in written[number]]) for number in range(4)]
        )
        for outcome, change in (
            ("gap", lambda m: m),
            ("probability", torch.sigmoid),
            ("accuracy", lambda m: (m > 0).double()),
        ):
            lost = (change(before)[:, None] - change(after)).mean(dim=1)
            assert float(found.values[outcome][layer, 0]) == pytest.approx(float(lost.mean()), abs=2e-5)
            assert float(found.errors[outcome][layer, 0]) == pytest.approx(float(lost.std() / 2), abs=2e-5)
        assert float((before[:, None] - after).abs().max()) > 0.05


def test_all_heads_of_a_layer_at_once_are_not_its_heads_one_by_one(both):
    objective = both[2]
    found, alone = layer_ablation(objective, "zero"), ablation(objective, "zero")
    together = objective.margins(torch.eye(3, dtype=torch.bool)[:, :, None].expand(-1, -1, 4))  # the values are 0
    before = objective.margins(torch.zeros(1, 3, 4, dtype=torch.bool))
    torch.testing.assert_close(found.values["gap"][:, 1], (before - together).double().mean(dim=0), atol=1e-5, rtol=0)
    assert not torch.allclose(found.values["gap"][:, 1], alone.values["gap"].sum(dim=1), atol=1e-3)


@pytest.mark.parametrize("seed", [0, 1])
def test_the_planted_mlp_and_heads_have_their_parts(tokenizer, tmp_path_factory, seed):
    circuit = planted_circuit(tokenizer, tmp_path_factory, seed=seed)
    for kind in ("zero", "mean"):
        found = layer_ablation(circuit.objective(), kind)
        part = {"reader": BASE, "direct": DIRECT, "hindering": HINDRANCE}
        for layer in range(3):
            heads = sum(gain for name, gain in part.items() if circuit.head[name].layer == layer)
            expected = (BASE if layer == 2 else 0.0, heads)
            assert found.values["gap"][layer].tolist() == pytest.approx(expected, abs=0.01), (kind, layer)


def test_the_table_stands_next_to_that_of_heads(tokenizer, tmp_path_factory):
    objective = planted_circuit(tokenizer, tmp_path_factory).objective()
    found = layer_ablation(objective, "resample", layers=[2, 0], resamples=4, criterion="warm")
    frame, heads = found.frame(), ablation(objective, "resample", resamples=4, criterion="warm").frame()
    assert set(frame.columns) - set(heads.columns) == {"part"} and set(heads.columns) - set(frame.columns) == {"head"}
    for column in ("criterion", "measure", "outcome", "n"):
        assert set(frame[column]) == set(heads[column])
    assert frame["score"].isna().equals(frame["layer"] == 1)
    assert (frame.query("part == 'mlp' and layer == 2 and outcome == 'gap'")["sampling_se"] > 0).all()
    assert list(found.by_layer("gap").columns) == ["mlp", "attention"] and "LayerAblation" in repr(found)
    with pytest.raises(ValueError, match=r"no layer 3; the model's layers are 0 to 2"):
        layer_ablation(objective, layers=[3])
