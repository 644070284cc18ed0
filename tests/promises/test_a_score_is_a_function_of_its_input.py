"""A score depends on its prompt alone: not on batch mates, batch size, padding side, order, thread, or what ran before."""

from __future__ import annotations

import copy
import itertools
import random
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
import transformers
from transformer_lens.hook_points import HookPoint

from arm_lens import ActivationRewardModel, GenerativeJudge, HeadSet, JudgeTemplate, LabelledResponse, load_model, steer
from arm_lens.engine import (
    Replay,
    VerdictTokens,
    language_model,
    last_logits,
    pad,
    read_all,
    read_batch,
    sample_tokens,
    shared_readings,
)
from arm_lens.engine.prefix_cache import each_last_logits
from arm_lens.engine.tokens import MixedLengthsError, encode_text
from arm_lens.judges.options import QuestionOptions, ReadingOptions

pytestmark = [pytest.mark.tl4, pytest.mark.filterwarnings("ignore::arm_lens.engine.replay.SlowReplayWarning")]

ORIGINAL = 16
CLOSE = {"atol": 1e-4, "rtol": 1e-4}
SHAPE = {
    "vocab_size": 96, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4,
    "bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 0,
}  # fmt: skip
SCALED = {"rope_theta": 100.0, "factor": 4.0, "original_max_position_embeddings": ORIGINAL}
ROPES = {
    "default": {"rope_type": "default", "rope_theta": 100.0},
    "linear": {"rope_type": "linear", "rope_theta": 100.0, "factor": 4.0},
    "dynamic": {"rope_type": "dynamic", "rope_theta": 100.0, "factor": 4.0},
    "yarn": SCALED | {"rope_type": "yarn"},
    "llama3": SCALED | {"rope_type": "llama3", "low_freq_factor": 1.0, "high_freq_factor": 4.0},
    "longrope": SCALED | {"rope_type": "longrope", "short_factor": [1.0] * 4, "long_factor": [1.0, 2.0, 3.0, 4.0]},
}
LENGTHS = [5, 30, 17, 16, 8, 24, 15, 30]
SEQUENCES = torch.randint(3, 96, (len(LENGTHS), max(LENGTHS)), generator=torch.Generator().manual_seed(0)).tolist()
SEQUENCES = [row[:length] for row, length in zip(SEQUENCES, LENGTHS, strict=True)]
SEQUENCES[1][:12] = SEQUENCES[7][:12]
VERDICTS = VerdictTokens((5,), (6, 7))


@pytest.fixture(params=ROPES)
def scaled(request, fresh):
    """A model with scaled rotary positions, of which nothing is known yet."""
    context = ORIGINAL if request.param == "dynamic" else 64
    config = transformers.LlamaConfig(**SHAPE, max_position_embeddings=context, rope_parameters=ROPES[request.param])
    model = fresh(config)
    model.cfg.n_ctx = 64  # what is beyond is what dynamic positions are scaled for
    return model


def raw_logits(model, sequence):
    """What the Hugging Face model of the same weights gives for one prompt, in a fresh module."""
    from arm_lens.engine.bridge import rebuilt

    with torch.no_grad():
        return rebuilt(model.original_model)(torch.tensor([sequence])).logits[0, -1]


@pytest.mark.slow
@pytest.mark.parametrize("batch_size", [1, 3, 16])
def test_no_batch_mate_changes_a_logit(scaled, batch_size):
    expected = torch.stack([raw_logits(scaled, sequence) for sequence in SEQUENCES])
    order = list(range(len(SEQUENCES)))
    for seed in range(3):
        random.Random(seed).shuffle(order)
        found = torch.empty_like(expected)
        for here, logits in each_last_logits(scaled, [SEQUENCES[one] for one in order], batch_size=batch_size):
            found[[order[one] for one in here]] = logits
        torch.testing.assert_close(found, expected, **CLOSE)


@pytest.mark.slow
def test_no_batch_mate_changes_an_activation_or_a_replay(scaled):
    alone = torch.cat([read_all(scaled, [sequence]) for sequence in SEQUENCES])
    torch.testing.assert_close(read_all(scaled, SEQUENCES, batch_size=16), alone, **CLOSE)
    torch.testing.assert_close(read_all(scaled, SEQUENCES[::-1], batch_size=3).flip(0), alone, **CLOSE)
    mask = torch.rand(3, 2, 4, generator=torch.Generator().manual_seed(0)) < 0.5
    values = torch.randn(2, 4, 8, generator=torch.Generator().manual_seed(1))
    one_by_one = torch.cat([Replay(scaled, [one], VERDICTS).verdict_logits(mask, values) for one in SEQUENCES])
    together = Replay(scaled, SEQUENCES, VERDICTS, batch_size=8).verdict_logits(mask, values)
    torch.testing.assert_close(together, one_by_one, **CLOSE)


def test_one_padded_batch_is_right_on_both_sides_or_refused(scaled):
    expected = torch.stack([raw_logits(scaled, sequence) for sequence in SEQUENCES])
    for side in ("left", "right"):
        try:
            found = last_logits(scaled, pad(SEQUENCES, side=side))
        except MixedLengthsError as error:
            assert language_model(scaled).reads_alone(map(len, SEQUENCES))
            assert "prompts of 5 and 30 tokens cannot be read together: pass batch_size=1" in str(error)
        else:
            torch.testing.assert_close(found, expected, **CLOSE)
        short = [number for number, length in enumerate(LENGTHS) if length <= ORIGINAL]
        found = last_logits(scaled, pad([SEQUENCES[number] for number in short], side=side))
        torch.testing.assert_close(found, expected[short], **CLOSE)


@pytest.mark.slow
def test_what_ran_before_changes_nothing(scaled):
    uniforms = torch.rand(1, 12, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    expected = [raw_logits(scaled, sequence) for sequence in SEQUENCES]
    written = sample_tokens(scaled, SEQUENCES[:1], uniforms)
    for number in (1, 0, 2, 7, 3, 5, 2, 1, 6, 3):
        torch.testing.assert_close(last_logits(scaled, pad([SEQUENCES[number]]))[0], expected[number], **CLOSE)
    assert sample_tokens(scaled, SEQUENCES[:1], uniforms) == written


@pytest.mark.slow
@pytest.mark.parametrize("family", ["llama", "gpt2", "qwen2", "gpt_neox"])
def test_padding_side_batch_and_order_change_nothing(model_of, model_class, family):
    model = model_of(family, model_class)
    alone = torch.cat([last_logits(model, pad([sequence])) for sequence in SEQUENCES])
    heads = torch.cat([read_batch(model, pad([sequence])) for sequence in SEQUENCES])
    for side in ("left", "right"):
        torch.testing.assert_close(last_logits(model, pad(SEQUENCES, side=side)), alone, **CLOSE)
        torch.testing.assert_close(read_batch(model, pad(SEQUENCES, side=side)), heads, **CLOSE)
        torch.testing.assert_close(last_logits(model, pad(SEQUENCES[::-1], side=side)).flip(0), alone, **CLOSE)


@pytest.mark.parametrize("steered", [False, True])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_tells_responses_apart_whether_readings_are_shared_or_not(folder_of, dtype, steered):
    model, question = load_model(folder_of("llama"), dtype=dtype), QuestionOptions(template=TEMPLATE)
    judge = GenerativeJudge(model, question=question)
    if steered:
        examples = [LabelledResponse(place, "it is warm", number % 2 == 0) for number, place in enumerate(PLACES)]
        heads, reading = HeadSet.of(3, 4, [(0, 1), (2, 3)]), ReadingOptions(demonstrations=1, readings=4)
        judge = ActivationRewardModel.fit(
            model, examples, question=question, reading=reading, selector=heads, criterion="warm"
        )
    prompts, responses = PLACES * 4, [f"it is {'so ' * number}warm" for number in range(32)]
    gaps = judge.score(prompts, responses, kind="gap")
    with shared_readings():
        assert torch.equal(judge.score(prompts, responses, kind="gap"), gaps)
    assert len(set(gaps.tolist())) == len(gaps)


@pytest.mark.slow
def test_a_hook_or_other_weights_of_a_hugging_face_model_count_from_the_next_score_on(folder_of, tokenizer):
    """Whatever is looked up about a model before a pass, is looked up of the model as it is now."""

    def judged(between):
        raw = transformers.AutoModelForCausalLM.from_pretrained(folder_of("llama")).eval()
        judge = GenerativeJudge((raw, tokenizer), question=QuestionOptions(template=TEMPLATE))
        prompts = ["the garden by the river and the mill"] * 6
        responses = [f"it is {word}" for word in ("warm", "cold", "so", "warm", "a", "the")]
        with shared_readings():
            before = judge.score(prompts, responses, kind="gap")
            between(raw)
            found = [judge.score(prompts, responses, kind="gap") for _ in range(2)]
        return before, *found, judge.score(prompts, responses, kind="gap")

    def hook(raw):
        def last(_, inputs, output):
            output[:, -1] += 1.0
            return output

        raw.model.layers[1].mlp.register_forward_hook(last)

    def weights(raw):
        weight = raw.model.layers[0].mlp.down_proj.weight
        weight.data = 3 * weight.data

    for between in (hook, weights):
        before, first, second, alone = judged(between)
        torch.testing.assert_close(first, second, atol=1e-5, rtol=1e-5)
        torch.testing.assert_close(first, alone, atol=1e-4, rtol=1e-4)
        assert not torch.allclose(first, before, atol=1e-3)


@pytest.mark.parametrize("looked_up", ["is_hooked", "has_foreign_hooks", "state"])
def test_each_look_at_a_hugging_face_model_is_at_what_it_is_now(folder_of, tokenizer, looked_up):
    raw = transformers.AutoModelForCausalLM.from_pretrained(folder_of("llama")).eval()
    model = language_model((raw, tokenizer))
    model.last_logits(pad([SEQUENCES[0]]))
    before = getattr(model, looked_up)()
    if looked_up == "state":
        weight = raw.model.layers[0].mlp.down_proj.weight
        weight.data = 3 * weight.data
    else:
        raw.model.layers[1].mlp.register_forward_hook(lambda *_: None)
    assert getattr(model, looked_up)() != before


def test_what_was_exact_without_padding_is_tried_again_with_it(fresh):
    """GPT-Neo's local layers look back by slots, so that padding between a prefix and the rest hides what comes before."""
    shape = {"vocab_size": 96, "hidden_size": 32, "intermediate_size": 64, "num_layers": 2, "num_heads": 4}
    config = transformers.GPTNeoConfig(
        **shape, attention_types=[[["global", "local"], 1]], window_size=6, max_position_embeddings=64,
        bos_token_id=1, eos_token_id=2,
    )  # fmt: skip
    model, beginning = fresh(config), SEQUENCES[1][:12]
    alike = [[*beginning, *row[:9]] for row in (SEQUENCES[2], SEQUENCES[5], SEQUENCES[7])]
    unlike = [
        [*beginning, *row[:length]]
        for length, row in zip((9, 1, 3), (SEQUENCES[2], SEQUENCES[5], SEQUENCES[7]), strict=True)
    ]
    no_heads, values = torch.zeros(1, 2, 4, dtype=torch.bool), torch.zeros(2, 4, 8)
    list(each_last_logits(model, alike * 4))
    sample_tokens(model, [SEQUENCES[7], SEQUENCES[4]], torch.rand(2, 2))  # padding, but before the prompts
    Replay(model, alike, VERDICTS).verdict_logits(no_heads, values)
    expected = torch.stack([raw_logits(model, one) for one in unlike])
    found = torch.empty(12, 96)
    for here, logits in each_last_logits(model, unlike * 4):
        found[here] = logits
    torch.testing.assert_close(found, expected.repeat(4, 1), **CLOSE)
    torch.testing.assert_close(
        Replay(model, unlike, VERDICTS).verdict_logits(no_heads, values)[:, 0], VERDICTS.sums(expected), **CLOSE
    )


# ------------------------------------------------------------------------------------------ threads

TEMPLATE = JudgeTemplate(
    header="", scalar="request: {prompt} reply: {response}", cue=" verdict:", yes=("yes",), no=("no",)
)
PLACES = ["garden", "river", "mill", "church", "hotel", "farm", "school", "bridge"]
EXAMPLES = [LabelledResponse(place, f"it is {word}", word == "warm") for place in PLACES for word in ("warm", "cold")]
PROMPTS = [PLACES[number % len(PLACES)] for number in range(12)]
RESPONSES = [f"it is {'so ' * (number % 4)}{'cold' if number % 3 else 'warm'}" for number in range(12)]


@pytest.fixture(scope="module", params=["TransformerBridge", "HookedTransformer", "hugging face"])
def judges(request, folder_of, tokenizer):
    """Judges of one model: two reward models with different heads, one that judges by what it says."""
    from conftest import HOOKED

    if request.param == "HookedTransformer" and not HOOKED:
        pytest.skip("this TransformerLens has no HookedTransformer")
    if request.param == "hugging face":
        model = (transformers.AutoModelForCausalLM.from_pretrained(folder_of("llama")), tokenizer)
    else:
        model = load_model(folder_of("llama"), model_class=request.param)
    question = QuestionOptions(template=TEMPLATE)

    def fitted(heads):
        reading = ReadingOptions(demonstrations=2, readings=8)
        return ActivationRewardModel.fit(
            model, EXAMPLES, question=question, reading=reading, selector=HeadSet.of(3, 4, heads)
        )

    return [
        fitted([(0, 1), (1, 2), (2, 2)]),
        fitted([(0, 0), (1, 3)]),
        GenerativeJudge(model, question=question),
        GenerativeJudge(model, examples=EXAMPLES[:4], question=question),
    ]


@pytest.mark.slow
def test_a_hundred_calls_from_several_threads_give_what_one_thread_gives(judges):
    expected = [judge.score(PROMPTS, RESPONSES) for judge in judges]
    for one, other in itertools.pairwise(expected):
        assert not torch.allclose(one, other)  # they would notice each other's hooks
    calls = [number % len(judges) for number in range(100)]
    random.Random(0).shuffle(calls)
    with ThreadPoolExecutor(4) as pool:
        found = [(call, pool.submit(judges[call].score, PROMPTS, RESPONSES)) for call in calls]
        for call, future in found:
            assert torch.equal(future.result(), expected[call])
    assert not judges[0].model.is_hooked()


def test_a_user_who_steers_does_not_steer_another_thread(judges):
    judge = judges[2]
    expected, steering, done = judge.score(PROMPTS, RESPONSES), threading.Event(), []

    def elsewhere():
        steering.wait()
        done.append(judge.score(PROMPTS, RESPONSES))

    thread = threading.Thread(target=elsewhere)
    thread.start()
    with steer(judge.model, HeadSet.of(3, 4, [(0, 0), (1, 1), (2, 3)]), torch.ones(3, 4, 12)):
        steering.set()
        steered = judge.score(PROMPTS, RESPONSES)  # nested use of the same thread goes on
        assert done == []
    thread.join()
    assert not torch.allclose(steered, expected)
    assert torch.equal(done[0], expected)


def test_a_model_that_two_threads_meet_at_once_is_taken_once(folder_of, tokenizer):
    for _ in range(3):
        raw = transformers.AutoModelForCausalLM.from_pretrained(folder_of("llama"))
        ready = threading.Barrier(4)

        def take(raw=raw, ready=ready):
            ready.wait()
            return language_model((raw, tokenizer))

        with ThreadPoolExecutor(4) as pool:
            taken = [future.result() for future in [pool.submit(take) for _ in range(4)]]
        assert len({id(one) for one in taken}) == 1


@pytest.mark.slow
@pytest.mark.parametrize("interruption", [KeyboardInterrupt, RuntimeError, torch.OutOfMemoryError])
def test_after_an_interruption_nothing_is_left_on_the_model(judges, interruption):
    model, expected = judges[0].model, [judge.score(PROMPTS, RESPONSES) for judge in judges]
    module = model._lens
    module.train()
    modes = [part.training for part in module.modules()]
    gradients = [weight.requires_grad for weight in module.parameters()]
    passes = 0

    def interrupt(*_):
        nonlocal passes
        passes += 1
        if passes == moment:
            raise interruption

    for moment in (1, 2, 3):
        for judge in judges:
            passes = 0
            with model.blocks[2].register_forward_pre_hook(interrupt), pytest.raises(interruption):
                judge.score(PROMPTS * moment, RESPONSES * moment)
                judge.score(PROMPTS, RESPONSES)
                judge.score(PROMPTS, RESPONSES)
    assert not model.is_hooked()
    assert [part.training for part in module.modules()] == modes
    assert [weight.requires_grad for weight in module.parameters()] == gradients
    with ThreadPoolExecutor(1) as pool:  # another thread would wait for ever for a lock that was left
        for judge, one in zip(judges, expected, strict=True):
            assert torch.equal(pool.submit(judge.score, PROMPTS, RESPONSES).result(timeout=60), one)
    module.eval()


@pytest.mark.parametrize(
    "change", [lambda backend: backend.enable_truncation(3), lambda backend: backend.enable_padding(length=99)]
)
def test_a_text_is_whole_while_another_thread_has_the_tokenizer_truncate_or_pad(tokenizer, change):
    tokenizer = copy.deepcopy(tokenizer)
    tokenizer.backend_tokenizer.enable_padding(length=99)
    expected, settle = encode_text(tokenizer, "the garden is warm"), tokenizer.set_truncation_and_padding
    others = iter([change, change])

    def settled_and_changed_by_another_thread(**options):
        settle(**options)
        next(others, lambda backend: None)(tokenizer.backend_tokenizer)

    tokenizer.set_truncation_and_padding = settled_and_changed_by_another_thread
    assert encode_text(tokenizer, "the garden is warm") == expected
    assert len(expected) == 4 and next(others, None) is None


def test_an_interruption_while_hooks_are_added_leaves_none_of_them(model_of, model_class, monkeypatch):
    model, add_hook = model_of("llama", model_class), HookPoint.add_hook
    expected = last_logits(model, pad(SEQUENCES[:1]))

    def interrupted(point, *args, **options):
        add_hook(point, *args, **options)
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(HookPoint, "add_hook", interrupted)
        with pytest.raises(KeyboardInterrupt), steer(model, HeadSet.all(3, 4), torch.ones(3, 4, 12)):
            raise AssertionError("not reached")
    assert not language_model(model).is_hooked()
    assert torch.equal(last_logits(model, pad(SEQUENCES[:1])), expected)
