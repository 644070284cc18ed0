"""A small cut of the benchmark on a real model: SmolLM2-135M-Instruct, 30 layers of 9 heads, from its GGUF file.

Weights, tokenizer and chat template are those that a user of `arm-lens benchmark real` has. The model is downloaded once,
into the cache folder; if that is impossible these tests fail, because nothing else here runs on a real model. They are in
one file, so that one process loads the model, once.
"""

from __future__ import annotations

import copy

import pytest
import torch
from einops import rearrange

from arm_lens import ActivationRewardModel, Head, HeadSet, LabelledResponse, load_model, steer
from arm_lens.benchmark.smollm2 import DownloadError, real_model
from arm_lens.engine import (
    Replay,
    VerdictTokens,
    describe,
    fingerprint,
    language_model,
    last_logits,
    mean_heads,
    pad,
    precision,
    read_all,
)
from arm_lens.judges.options import ReadingOptions
from arm_lens.judges.sav import SparseAttentionVectors
from arm_lens.selection import Reinforce

pytestmark = [pytest.mark.real, pytest.mark.slow]

POSITIVE = (
    "I love this film, it made my whole week.", "What a wonderful concert, thank you all!",
    "Best coffee in town and such friendly people.", "So happy with my new bike, it rides like a dream.",
    "The sunrise this morning was beautiful.", "Great match tonight, we played brilliantly.",
)  # fmt: skip
NEGATIVE = (
    "I hate this film, it ruined my whole week.", "What a terrible concert, a waste of money.",
    "Worst coffee in town and such rude people.", "So angry about my new bike, it broke on day one.",
    "The traffic this morning was a nightmare.", "Awful match tonight, we played like amateurs.",
)  # fmt: skip
TEXTS = [text for pair in zip(POSITIVE, NEGATIVE, strict=True) for text in pair]
EXAMPLES = [LabelledResponse("", text, label=text in POSITIVE, criterion="positive") for text in TEXTS[:8]]
HELD_OUT = TEXTS[8:]
CRITERION = "The text is positive."
FEW = [Head(12, 7), Head(14, 6), Head(19, 5)]


@pytest.fixture(scope="session")
def path():
    try:
        return real_model()
    except DownloadError as error:
        pytest.fail(f"{error}; without it, these tests are left out by -m 'not real'")


@pytest.fixture(scope="session")
def model(path):
    return load_model(path, device="cpu")


@pytest.fixture(scope="session")
def sequences(model):
    template = model.tokenizer.apply_chat_template
    texts = [
        template([{"role": "user", "content": text}], tokenize=False, add_generation_prompt=True) for text in TEXTS
    ]
    return language_model(model).encode(texts[:4], chat=True)


@pytest.fixture(scope="session")
def means(model, sequences):
    return mean_heads(model, sequences).values


def assert_same_effect(model, found, expected, plain):
    """What steering does to logits is the same, up to rounding, which in bfloat16 is coarse."""
    effect, error = (expected - plain).norm(), (found - expected).norm()
    assert effect > 0 and error < {"float32": 0.005, "bfloat16": 0.25}[describe(model).dtype] * effect


def test_it_is_the_model_and_speaks(model, path):
    info = describe(model)
    assert (info.name, info.n_layers, info.n_heads, info.d_head) == (str(path), 30, 9, 64)
    fast = precision.cpu_speedup() >= precision.CLEARLY
    assert info.dtype == ("bfloat16" if fast else "float32")
    question = [{"role": "user", "content": "What is the capital of France? Answer with one word."}]
    text = model.tokenizer.apply_chat_template(question, tokenize=False, add_generation_prompt=True)
    (ids,) = language_model(model).encode([text + "The capital of France is"], chat=True)
    assert model.tokenizer.decode([int(last_logits(model, pad([ids])).argmax())]) == " Paris"


def test_what_is_read_and_written_is_what_the_raw_modules_have(model, sequences, means):
    raw = language_model(model).raw_module()
    assert language_model(model).findings.natively
    raw.set_attn_implementation("sdpa")  # in bfloat16, another order of the same sums differs as much as a few heads do
    projections = [layer.self_attn.o_proj for layer in raw.model.layers]
    (sequence,) = sequences[:1]
    seen = []
    handles = [
        one.register_forward_pre_hook(lambda _, args: seen.append(args[0][0, -1].clone())) for one in projections
    ]
    with torch.no_grad():
        raw(torch.tensor([sequence]))
    for handle in handles:
        handle.remove()
    read = read_all(model, [sequence])[0].float()
    expected = rearrange(seen, "layer (head d) -> layer head d", head=9).float()
    assert (read - expected).abs().max() < 0.05 * expected.abs().max()
    heads = HeadSet.of(30, 9, FEW)

    def writing(layer):
        def write(_, args):
            z = args[0].clone()
            for head in (one.head for one in FEW if one.layer == layer):
                z[:, -1, 64 * head : 64 * (head + 1)] = means[layer, head].to(z)
            return (z,)

        return write

    handles = [projections[one.layer].register_forward_pre_hook(writing(one.layer)) for one in FEW]
    with torch.no_grad():
        expected = raw(torch.tensor([sequence])).logits[0, -1].float()
    for handle in handles:
        handle.remove()
    plain = last_logits(model, pad([sequence]))[0].float()
    with steer(model, heads, means):
        steered = last_logits(model, pad([sequence]))[0].float()
    assert_same_effect(model, steered, expected, plain)


@pytest.fixture(scope="session")
def exact(model):
    """The same weights in float32: the rounding of bfloat16 is not small beside what a few heads do to the logits."""
    raw = copy.deepcopy(language_model(model).raw_module()).float()
    return language_model((raw, model.tokenizer))


def test_replays_give_what_plain_passes_give(exact, sequences, means):
    model = exact
    masks = torch.rand(4, 30, 9, generator=torch.Generator().manual_seed(0)) < 0.03
    replay = Replay(model, sequences, VerdictTokens((11, 12), (13,)))
    found = replay.logits(masks, means)
    assert replay.exact

    def passes():
        return torch.cat([last_logits(model, pad([sequence])) for sequence in sequences]).float()

    plain = passes()
    for mask, logits in zip(masks, found.unbind(1), strict=True):
        with steer(model, mask, means):
            expected = passes()
        assert_same_effect(model, logits, expected, plain)


def test_a_fit_selects_a_few_heads_and_is_saved_and_loaded_by_the_files_name(model, tmp_path):
    search = Reinforce(steps=10, masks=8, initial_logit=-3.0, head_penalty=0.002, top_k=4, final="top_k")
    fitted = ActivationRewardModel.fit(
        model, EXAMPLES, question=CRITERION, selector=search, reward="two_way", seed=0,
        reading=ReadingOptions(demonstrations=2, readings=8),
    )  # fmt: skip
    assert len(fitted.heads) == 4
    prompts = [""] * len(HELD_OUT)
    scores = fitted.score(prompts, HELD_OUT)
    assert not torch.equal(scores, fitted.judge.score(prompts, HELD_OUT))  # the heads are written
    fitted.save(tmp_path / "saved")
    loaded = ActivationRewardModel.load(tmp_path / "saved", device="cpu")  # reads the GGUF file anew
    assert loaded.info == fitted.info
    assert torch.equal(fingerprint(loaded.judge.model), fingerprint(model))
    assert torch.equal(loaded.score(prompts, HELD_OUT), scores)


def test_attention_vectors_tell_moods_apart_on_texts_that_they_have_not_seen(model):
    fitted = SparseAttentionVectors.fit(model, EXAMPLES, question=CRITERION)
    scores = fitted.score([""] * len(HELD_OUT), HELD_OUT)
    right = (scores > 0.5) == torch.tensor([text in POSITIVE for text in HELD_OUT])
    assert right.float().mean() >= 0.75
