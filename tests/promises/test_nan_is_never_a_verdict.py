"""NaN and infinity are never a verdict: wherever they arise, an error names prompt, layer and the likely cause."""

from __future__ import annotations

import pytest
import torch
import transformers
from transformers import AutoModelForCausalLM

from arm_lens import ActivationRewardModel, GenerativeJudge, HeadSet, JudgeTemplate, LabelledResponse, load_model, steer
from arm_lens.engine import (
    HeadMeans,
    NotFiniteError,
    Replay,
    VerdictTokens,
    gap_slopes,
    gated_verdicts,
    language_model,
    last_logits,
    mean_heads,
    pad,
    read_all,
    read_batch,
    sample_tokens,
)
from arm_lens.engine.finite import naming_prompts
from arm_lens.engine.prefix_cache import each_last_logits
from arm_lens.judges.options import QuestionOptions, ReadingOptions

pytestmark = pytest.mark.tl4

COMMON = [1, 9, 30, 41, 52, 8, 12, 13, 14, 15]
LARGE = 80
"""The token at which the model overflows."""
SEQUENCES = [[*COMMON, 20], [*COMMON, 31, 22], [*COMMON, LARGE], [*COMMON, 24]]
VERDICTS = VerdictTokens((5,), (6, 7))
NO_HEADS, VALUES = torch.zeros(1, 2, 4, dtype=torch.bool), torch.zeros(2, 4, 8)


@pytest.fixture(params=["TransformerBridge", "HookedTransformer"])
def overflowing(request, tmp_path, tokenizer):
    """A float16 model that overflows in layer 0 at one token, and is fine at all others."""
    from conftest import HOOKED

    if request.param == "HookedTransformer" and not HOOKED:
        pytest.skip("this TransformerLens has no HookedTransformer")
    shape = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4}
    torch.manual_seed(0)
    raw = transformers.LlamaForCausalLM(
        transformers.LlamaConfig(
            **shape, vocab_size=len(tokenizer), max_position_embeddings=64, tie_word_embeddings=False
        )
    )
    with torch.no_grad():
        for parameter in raw.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
        raw.model.embed_tokens.weight[:, 0] = 0.0
        raw.model.embed_tokens.weight[LARGE] = 0.0
        raw.model.embed_tokens.weight[LARGE, 0] = 1.0
        for layer in raw.model.layers:  # nothing else is written into dimension 0
            layer.self_attn.o_proj.weight[0] = 0.0
            layer.mlp.down_proj.weight[0] = 0.0
        mlp = raw.model.layers[0].mlp
        mlp.up_proj.weight[0], mlp.gate_proj.weight[0], mlp.down_proj.weight[:, 0] = 0.0, 0.0, 0.0
        mlp.up_proj.weight[0, 0] = mlp.gate_proj.weight[0, 0] = 300.0
        mlp.down_proj.weight[1, 0] = 1.0
    raw.save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    return load_model(tmp_path, model_class=request.param, dtype=torch.float16)


def overflow(prompt=2):
    return pytest.raises(
        NotFiniteError,
        match=rf"of prompt {prompt} .*from the output of layer 0 on.*float16 overflows.*bfloat16 or float32",
    )


def test_what_overflows_in_float16_is_an_error_wherever_it_is_read(overflowing):
    model = language_model(overflowing)
    assert last_logits(model, pad([SEQUENCES[0], SEQUENCES[1], SEQUENCES[3]])).isfinite().all()
    for side in ("left", "right"):
        with overflow():
            last_logits(model, pad(SEQUENCES, side=side))
        with overflow():
            model.logits(pad(SEQUENCES, side=side))
        with overflow():
            read_batch(model, pad(SEQUENCES, side=side))
    with overflow():
        read_all(model, SEQUENCES, batch_size=1)  # by its number among all prompts
    with overflow():
        mean_heads(model, SEQUENCES, batch_size=2)
    with overflow(0):
        list(each_last_logits(model, [SEQUENCES[2], *SEQUENCES[:2]], batch_size=2))
    with overflow(5):
        list(each_last_logits(model, [*SEQUENCES[:2] * 2, SEQUENCES[0], SEQUENCES[2]], batch_size=3))
    with pytest.raises(NotFiniteError, match=r"of prompt 2 .*float16 overflows"):
        sample_tokens(model, SEQUENCES, torch.rand(4, 3))


def test_no_replay_and_no_slope_is_nan(overflowing):
    replay = Replay(overflowing, SEQUENCES, VERDICTS)
    assert replay.verdict_logits(NO_HEADS, VALUES, [0, 1, 3]).isfinite().all()
    for results in (replay.verdict_logits, replay.log_probs, replay.logits):
        with overflow():
            results(NO_HEADS, VALUES)
    with overflow():
        gated_verdicts(replay, torch.zeros(2, 4), VALUES, normalised=False)
    with overflow():
        gap_slopes(replay, VALUES)


def test_no_judge_gives_nan(overflowing, tokenizer):
    template = JudgeTemplate(
        header="", scalar="{prompt} {response}", cue=" verdict:", yes=("yes",), no=("no",), chat=False
    )
    question, word = QuestionOptions(template=template), tokenizer.convert_ids_to_tokens(LARGE)
    judge = GenerativeJudge(overflowing, question=question)
    assert judge.score(["the garden"], ["warm"]).isfinite().all()
    with pytest.raises(NotFiniteError, match=r"of prompt 1 .*from the output of layer 1 on.*float16 overflows"):
        judge.score(["the garden"] * 2, ["warm", word])
    examples = [LabelledResponse(place, one, one == word) for place in ("mill", "farm") for one in (word, "cold")]
    with pytest.raises(NotFiniteError, match="float16 overflows"):
        ActivationRewardModel.fit(
            overflowing,
            examples,
            question=question,
            reading=ReadingOptions(demonstrations=1, readings=4),
            selector=HeadSet.of(2, 4, [(0, 1)]),
        )


def test_what_is_written_is_named_as_a_cause(model_of, model_class):
    model, values = model_of("llama", model_class), torch.full((3, 4, 12), torch.inf)
    with (
        steer(model, HeadSet.of(3, 4, [(1, 2)]), values),
        pytest.raises(
            NotFiniteError, match=r"of prompt 0 .*from the output of layer 1 on.*what hooks write into the model"
        ),
    ):
        last_logits(model, pad(SEQUENCES[:2]))
    masks = HeadSet.of(3, 4, [(1, 2)]).mask[None]
    with pytest.raises(NotFiniteError, match=r"of prompt 0"):
        Replay(model, SEQUENCES[:2], VERDICTS).verdict_logits(masks, values)


def test_means_are_finite():
    values = torch.zeros(3, 2, 4)
    values[1, 0, 2] = torch.nan
    with pytest.raises(NotFiniteError, match="the means are NaN or infinite, from the output of layer 1 on"):
        HeadMeans(values, 4)


def test_masked_tokens_of_the_vocabulary_are_no_error_unless_one_is_a_verdict(folder_of, tokenizer):
    raw = AutoModelForCausalLM.from_pretrained(folder_of("llama"))
    never = torch.tensor([100, 101])

    def mask(module, inputs, logits):
        return logits.index_fill(-1, never, -torch.inf)

    raw.lm_head.register_forward_hook(mask)
    model = language_model((raw, tokenizer))
    logits = last_logits(model, pad(SEQUENCES))
    assert logits[:, never].isneginf().all() and logits[:, :100].isfinite().all()
    replay = Replay(model, SEQUENCES, VerdictTokens((5,), (100,)))
    with pytest.raises(NotFiniteError, match="the verdict's logits"):
        replay.verdict_logits(torch.zeros(1, 3, 4, dtype=torch.bool), torch.zeros(3, 4, 12))


def test_prompts_are_renamed_and_other_errors_are_not():
    with pytest.raises(NotFiniteError, match="logits of prompt 9 are"), naming_prompts([7, 8, 9]):
        raise NotFiniteError.of("the logits", 2, None, "why")
    with pytest.raises(NotFiniteError, match=r"^as it is$"), naming_prompts([7]):
        raise NotFiniteError("as it is")
