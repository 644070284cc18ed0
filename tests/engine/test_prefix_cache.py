"""Common beginnings are found, are read once, and make no difference to what comes out."""

from __future__ import annotations

import contextlib
import itertools

import pytest
import torch
import transformers
from hypothesis import given
from hypothesis import strategies as st

from arm_lens import GenerativeJudge, HeadSet, LabelledResponse, steer
from arm_lens.engine import KVSegment, Prefixes, language_model, last_logits, pad
from arm_lens.engine.hooks import OURS, silenced
from arm_lens.engine.prefix_cache import common_prefix, shared_beginning
from arm_lens.judges.options import QuestionOptions
from arm_lens.judges.questions import Question, encode_questions, questions_of
from arm_lens.judges.template import default_template

pytestmark = pytest.mark.tl4

TOLERANCE = 1e-4  # float32
COMMON = [1, 9, 30, 41, 52, 8, 12, 13, 14, 15]
RESTS = [[20, 21, 22, 23, 24], [77], [60, 61, 62]]
WHOLE = [COMMON + rest for rest in RESTS]


@contextlib.contextmanager
def tokens_read(model):
    """How many tokens, padding included, the model embeds in each pass."""
    counts: list[int] = []
    embed = model.embed
    handle = embed.register_forward_pre_hook(lambda _, inputs: counts.append(inputs[0].numel()))
    OURS.add(handle.id)  # with foreign hooks prompts are read as a whole
    try:
        yield counts
    finally:
        handle.remove()
        OURS.discard(handle.id)


# ------------------------------------------------------------------------------------------ what is common

sequences = st.lists(st.lists(st.integers(0, 2), min_size=1, max_size=6), min_size=1, max_size=5)


@given(sequences)
def test_the_common_prefix_is_the_longest_that_leaves_each_a_token(some):
    common = common_prefix(some)
    assert all(one[: len(common)] == common and len(one) > len(common) for one in some)
    longer = min(map(len, some)) > len(common) + 1 and len({one[len(common)] for one in some}) == 1
    assert not longer


# ------------------------------------------------------------------------------------------ reading on


@pytest.mark.parametrize("model_family", ["llama", "gpt2", "qwen2", "qwen3", "gpt_neox"])
def test_reading_on_gives_what_reading_whole_prompts_gives(model_of, model_family, model_class):
    model = model_of(model_family, model_class)
    expected = torch.cat([last_logits(model, pad([one])) for one in WHOLE])
    reader = language_model(model)
    past = [reader.prefill(pad([COMMON[:4]]))]
    past.append(reader.prefill(pad([COMMON[4:]]), past))  # a beginning may be read in several segments
    torch.testing.assert_close(
        language_model(model).last_logits_after(past, pad(RESTS)), expected, atol=TOLERANCE, rtol=0
    )


def test_reading_on_is_steered_at_the_last_token_and_the_beginning_is_not(model_of, model_class):
    model = model_of("llama", model_class)
    values = torch.randn(model.cfg.n_layers, model.cfg.n_heads, 12, generator=torch.Generator().manual_seed(0))
    heads = HeadSet.all(model.cfg.n_layers, model.cfg.n_heads)
    with steer(model, heads, values):
        expected = torch.cat([last_logits(model, pad([one])) for one in WHOLE])
        past = [language_model(model).prefill(pad([COMMON]))]
        found = language_model(model).last_logits_after(past, pad(RESTS))
    assert (expected - torch.cat([last_logits(model, pad([one])) for one in WHOLE])).abs().max() > 0.1
    torch.testing.assert_close(found, expected, atol=TOLERANCE, rtol=0)


def test_hooks_are_silent_inside_and_back_after(model_of, model_class):
    model = model_of("llama", model_class)
    calls = []
    with language_model(model).hooked({0: lambda z: calls.append(z.shape[1])}):
        last_logits(model, pad([[1, 2, 3]]))
        with silenced():
            last_logits(model, pad([[1, 2, 3, 4]]))
        last_logits(model, pad([[1, 2]]))
    assert calls == [3, 2]


def test_rows_of_a_shared_stretch_stay_shared():
    shared = KVSegment([torch.ones(1, 2, 3, 4)], [torch.ones(1, 2, 3, 4)], torch.zeros(1, 3, dtype=torch.long))
    assert shared.rows(torch.tensor([2, 0, 1])) is shared
    own = KVSegment([torch.arange(3.0)[:, None]], [torch.arange(3.0)[:, None]], torch.arange(3)[:, None])
    assert own.rows(torch.tensor([2, 0])).keys[0].flatten().tolist() == [2.0, 0.0]


# ------------------------------------------------------------------------------------------ prompts kept


def test_what_is_common_is_read_once_and_each_prompt_once(model_of, model_class):
    model = model_of("llama", model_class)
    prefixes = Prefixes(model, WHOLE, batch_size=2, memory_budget=1e9, progress=False)
    with tokens_read(model) as counts:
        for _ in range(3):
            for number in range(len(prefixes.batches)):
                prefixes.of_batch(number)
    # Without its last token the shortest prompt is the common part itself, of which it keeps one token for its own.
    assert counts == [len(COMMON) - 1, 2 * 3, 5]
    assert sorted(itertools.chain(*prefixes.batches)) == [0, 1, 2]


def test_prompts_beyond_the_budget_are_read_again(model_of, model_class):
    model = model_of("llama", model_class)
    segment = language_model(model).prefill(pad([COMMON]))
    per_token = segment.nbytes / len(COMMON)
    prefixes = Prefixes(model, WHOLE, batch_size=1, memory_budget=4 * per_token, progress=False)
    for number in range(3):
        prefixes.of_batch(number)
    with tokens_read(model) as counts:
        again = [prefixes.of_batch(number)[-1] for number in range(3)]
    assert [len(one.positions[0]) for one in again] == [1, 3, 5]
    assert counts == [5]  # those of 1 and 3 tokens fit into the budget of 4


# ------------------------------------------------------------------------------------------ the few-shot judge


def few_shot_judge(judge, **options):
    demonstrations = [
        LabelledResponse("where is the mill ?", f"the {word} is near the river .", word == "mill")
        for word in ("mill", "garden", "church", "mill")
    ]
    return GenerativeJudge(judge, examples=demonstrations, question=QuestionOptions(**options))


def asked_of(judge):
    return [
        Question(judge.template.question("where is the farm ?", f"the {word} is near the river ."), True, word)
        for word in ("farm", "hotel", "garden", "church", "mill", "river")
    ]


def test_a_few_shot_judge_reads_its_examples_once_and_judges_the_same(judge):
    few_shot = few_shot_judge(judge, batch_size=2)
    questions = asked_of(few_shot)
    whole = encode_questions(
        judge, few_shot.question, questions, demonstrations=[few_shot.demonstrations] * len(questions)
    )
    expected = torch.cat([last_logits(judge, pad([one])) for one in whole]).log_softmax(dim=-1)
    few_shot.verdict(questions)  # the first time it is made sure of that the model goes on exactly
    with tokens_read(judge) as counts:
        found = few_shot.verdict(questions)
    shared = len(common_prefix(whole))
    assert counts[0] == shared > 0.7 * len(whole[0])
    assert sum(counts[1:]) <= len(whole) * (max(map(len, whole)) - shared)
    positive = expected[:, list(few_shot.verdict_tokens.positive)].logsumexp(dim=-1)
    torch.testing.assert_close(found.log_positive, positive, atol=TOLERANCE, rtol=0)


def test_a_steered_few_shot_judge_judges_as_if_it_read_whole_prompts(judge):
    few_shot = few_shot_judge(judge, batch_size=2)
    questions = asked_of(few_shot)
    whole = encode_questions(
        judge, few_shot.question, questions, demonstrations=[few_shot.demonstrations] * len(questions)
    )
    generator = torch.Generator().manual_seed(0)
    heads = torch.rand(judge.cfg.n_layers, judge.cfg.n_heads, generator=generator) < 0.5
    values = torch.randn(*heads.shape, judge.cfg.d_head, generator=generator)
    unsteered = few_shot.verdict(questions)
    with steer(judge, heads, values):
        expected = torch.cat([last_logits(judge, pad([one])) for one in whole]).log_softmax(dim=-1)
        with tokens_read(judge) as counts:
            found = few_shot.verdict(questions)
    assert len(common_prefix(whole)) in counts
    positive = expected[:, list(few_shot.verdict_tokens.positive)].logsumexp(dim=-1)
    torch.testing.assert_close(found.log_positive, positive, atol=TOLERANCE, rtol=0)
    assert (found.log_positive - unsteered.log_positive).abs().max() > 0.1


def test_a_few_shot_judge_is_right_where_windows_are_counted_in_slots(fresh, tokenizer, judge):
    """Hugging Face's GPT-Neo; and the questions are of unequal length."""
    shape = {"hidden_size": 32, "num_layers": 4, "num_heads": 4, "intermediate_size": 128, "window_size": 8}
    shape |= {"attention_types": [[["global", "local"], 2]], "max_position_embeddings": 512}
    model = fresh(transformers.GPTNeoConfig(vocab_size=len(tokenizer), pad_token_id=0, **shape))
    few_shot = few_shot_judge(model, template=default_template(judge))
    replies = ["the mill is near the river ."[: 4 * length] for length in range(1, 8)]
    questions = [Question(few_shot.template.question("where is the farm ?", reply), True, "") for reply in replies]
    whole = encode_questions(
        model, few_shot.question, questions, demonstrations=[few_shot.demonstrations] * len(questions)
    )
    assert len(set(map(len, whole))) > 1
    expected = torch.cat([last_logits(model, pad([one])) for one in whole]).log_softmax(dim=-1)
    positive = expected[:, list(few_shot.verdict_tokens.positive)].logsumexp(dim=-1)
    torch.testing.assert_close(few_shot.verdict(questions).log_positive, positive, atol=TOLERANCE, rtol=0)


def test_nothing_is_shared_by_a_model_that_cannot_go_on_from_keys_and_values(fresh, model_class):
    shape = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4}
    model = fresh(transformers.LlamaConfig(**shape, vocab_size=96, pad_token_id=0), model_class)

    def add_token_before(_, inputs, embedded):
        return embedded + torch.nn.functional.pad(embedded, (0, 0, 1, -1))

    many = [[*COMMON, token] for token in range(20, 30)]
    handle = model.embed.register_forward_hook(add_token_before)
    assert shared_beginning(model, many) == []
    handle.remove()
    model = fresh(transformers.LlamaConfig(**shape, vocab_size=96, pad_token_id=0), model_class)
    assert shared_beginning(model, many) == COMMON


def test_with_a_hook_of_the_users_nothing_is_shared(judge):
    few_shot = few_shot_judge(judge)
    questions = asked_of(few_shot)
    lengths = []
    point = language_model(judge).hook_z(0)
    point.add_hook(lambda z, hook: lengths.append(z.shape[1]))
    try:
        whole = encode_questions(
            judge, few_shot.question, questions, demonstrations=[few_shot.demonstrations] * len(questions)
        )
        assert shared_beginning(judge, whole) == []
        few_shot.verdict(questions)
    finally:
        judge.reset_hooks()
    assert set(lengths) == {max(map(len, whole))}


def test_steering_is_no_foreign_hook(judge):
    zero_shot = GenerativeJudge(judge)
    whole = encode_questions(judge, zero_shot.question, questions_of([], zero_shot.template) + asked_of(zero_shot))
    with steer(judge, HeadSet.all(6, 8), torch.zeros(6, 8, judge.cfg.d_head)):
        assert shared_beginning(judge, [COMMON + whole[0], *[COMMON + one for one in whole]])[: len(COMMON)] == COMMON
