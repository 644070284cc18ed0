"""What is computed from a shape is what a model of that shape has, and its passes do; the page in docs/ has these numbers."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode
from transformers import LlamaConfig, LlamaForCausalLM

from arm_lens.sweep import Fit, Shape, needs, needs_table
from arm_lens.sweep.needs import LARGE

SMALL = Shape(
    n_layers=3, n_heads=4, n_key_value_heads=2, d_head=12, d_model=32, d_mlp=48, d_vocab=500
)  # fmt: skip
DOCS = Path(__file__).resolve().parents[2] / "docs" / "sweeps.md"


@pytest.fixture(scope="module")
def model():
    config = LlamaConfig(
        num_hidden_layers=SMALL.n_layers, num_attention_heads=SMALL.n_heads, num_key_value_heads=SMALL.n_key_value_heads,
        head_dim=SMALL.d_head, hidden_size=SMALL.d_model, intermediate_size=SMALL.d_mlp, vocab_size=SMALL.d_vocab,
        tie_word_embeddings=False, attn_implementation="eager",
    )  # fmt: skip
    return LlamaForCausalLM(config).to(torch.bfloat16).eval()


def test_parameters_and_weights_are_those_of_a_model_of_the_shape(model):
    assert SMALL.parameters == sum(parameter.numel() for parameter in model.parameters())
    assert needs(SMALL).weights == sum(parameter.nbytes for parameter in model.parameters())
    published = {"7 B": 7.62e9, "70 B": 70.6e9, "400 B": 405.9e9}
    for name, shape in LARGE.items():
        assert shape.parameters == pytest.approx(published[name.partition(" (")[0]], rel=1e-3)


def test_operations_are_those_that_a_pass_is_counted_to_do(model):
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        model(torch.arange(1, 21)[None], logits_to_keep=1)
    assert SMALL.operations(20) == counter.get_total_flops()
    with torch.no_grad():
        before = model(torch.arange(1, 21)[None], use_cache=True).past_key_values
    stored = sum(layer.keys.nbytes + layer.values.nbytes for layer in before.layers)
    assert needs(SMALL, Fit(questions=1, question_tokens=20)).stored == stored
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        model(torch.tensor([[7]]), past_key_values=before)
    assert SMALL.operations(1, 20) == counter.get_total_flops()


def test_time_is_that_of_all_passes_of_a_fit():
    fit = Fit(questions=6, question_tokens=30, readings=4, reading_tokens=100, steps=5, masks=8)
    assert fit.tried(SMALL) == 5 * 8 + 12
    passes = 4 * SMALL.operations(100) + 6 * SMALL.operations(30) + 52 * 6 * SMALL.operations(1, 30)
    assert needs(SMALL, fit).seconds(1e9) == pytest.approx(passes / 1e9)
    assert needs(SMALL).means == 4 * 3 * 4 * 12


def test_the_page_in_docs_has_the_computed_numbers():
    text = DOCS.read_text(encoding="utf-8")
    for row in needs_table().to_dict("records"):
        cells = [f"{row[name]:,.0f}" for name in ("weights", "weights_4bit")] + [f"{1024 * row['means']:.1f}"]
        cells += [f"{row[name]:,.1f}" for name in ("stored", "reading", "trying")] + [f"{row['minutes']:.1f}"]
        assert f"| {row['model']} | {' | '.join(cells)} |" in text
