"""A small cut of `scripts/sweep_architectures.py`: no architecture is wrong without a word."""

from __future__ import annotations

import pytest
import sweep_architectures as sweep

pytestmark = [pytest.mark.tl4, pytest.mark.slow]

RIGHT = ["LlamaForCausalLM", "Gemma2ForCausalLM", "DeepseekV3ForCausalLM", "FalconForCausalLM", "GptOssForCausalLM"]
REFUSED = {"JambaForCausalLM": "without attention heads", "Lfm2ForCausalLM": "without attention heads"}
REFUSED |= {"BartForConditionalGeneration": "encoder-decoder", "BertForMaskedLM": "is not causal"}
EITHER = ["CohereForCausalLM", "GPTNeoForCausalLM", "YoutuForCausalLM", "Qwen2ForCausalLM"]


@pytest.fixture(autouse=True)
def offline(monkeypatch):
    for name, value in sweep.OFFLINE.items():
        monkeypatch.setenv(name, value)


@pytest.mark.parametrize("architecture", RIGHT)
def test_common_architectures_are_right(architecture):
    found = sweep.outcome(architecture, "TransformerBridge")
    assert found.verdict == "right", found.detail


@pytest.mark.parametrize("architecture", REFUSED)
def test_what_has_no_heads_or_no_next_token_is_refused(architecture):
    found = sweep.outcome(architecture, "TransformerBridge")
    assert found.verdict == "refused" and REFUSED[architecture] in found.detail


@pytest.mark.parametrize("architecture", EITHER)
def test_nothing_is_wrong_without_a_word(architecture, model_class):
    if model_class == "HookedTransformer" and architecture not in sweep.known_to_hooked_transformer():
        pytest.skip("HookedTransformer does not know it")
    found = sweep.outcome(architecture, model_class)
    assert found.verdict in ("right", "refused"), found.detail


def test_what_differs_is_called_wrong(monkeypatch):
    monkeypatch.setattr(sweep, "ALLOWED", 0.0)
    assert sweep.outcome("LlamaForCausalLM", "TransformerBridge").verdict == "wrong"


def test_the_page_says_that_none_is_wrong():
    page = sweep.PAGE.read_text(encoding="utf-8")
    assert "**wrong**" not in page and "**failed**" not in page
    assert page.count("**right**") > 150
