"""Within `shared_readings` equal readings are made once, and what comes out is what comes out without."""

from __future__ import annotations

import contextlib

import pytest
import torch

from arm_lens import HeadSet, Injection, load_model, steer
from arm_lens.engine import (
    Prefixes,
    Replay,
    VerdictTokens,
    language_model,
    last_logits,
    mean_heads,
    memory_limit,
    pad,
    read_all,
    read_batch,
    shared_readings,
)

pytestmark = pytest.mark.tl4

COMMON = [1, 9, 30, 41, 52, 8, 12, 13, 14, 15]
SEQUENCES = [COMMON + rest for rest in ([20, 21, 22, 23, 24], [77, 3], [60, 61, 62], [5, 4, 3, 6])]
OTHERS = [COMMON + rest for rest in ([20, 21, 22, 23, 24], [77, 3], [60, 61, 62], [5, 4, 3, 7])]
VERDICTS = VerdictTokens((5,), (6, 7))


@pytest.fixture
def passes(monkeypatch):
    """passes(model): a context that gives how many prompts each pass of the model reads, without a hook."""

    @contextlib.contextmanager
    def counted(model):
        counts: list[int] = []
        embed, forward = model.embed, type(model.embed).forward

        def count(self, tokens, *args, **kwargs):
            if self is embed:
                counts.append(len(tokens))
            return forward(self, tokens, *args, **kwargs)

        with monkeypatch.context() as patch:
            patch.setattr(type(embed), "forward", count)
            yield counts

    return counted


def replayed(model, sequences=SEQUENCES, **options):
    masks = torch.rand(5, 3, 4, generator=torch.Generator().manual_seed(0)) < 0.5
    values = torch.randn(3, 4, 12, generator=torch.Generator().manual_seed(1))
    return Replay(model, sequences, VERDICTS, **options).logits(masks, values)


# ------------------------------------------------------------------------------------------ activations and means


def test_all_readings_are_those_of_each_prompt_alone(model_of, model_class):
    model = model_of("llama", model_class)
    expected = torch.cat([read_batch(model, pad([sequence])) for sequence in SEQUENCES])
    torch.testing.assert_close(read_all(model, SEQUENCES, batch_size=3), expected, atol=1e-5, rtol=1e-4)
    with pytest.raises(ValueError, match="nothing to read"):
        read_all(model, [])


def test_equal_readings_are_made_once_and_others_afresh(model_of, model_class, passes):
    model = model_of("llama", model_class)
    alone, means = read_all(model, SEQUENCES, batch_size=3), mean_heads(model, SEQUENCES, batch_size=3)
    with shared_readings(), passes(model) as counts:
        first, mean = read_all(model, SEQUENCES, batch_size=3), mean_heads(model, SEQUENCES, batch_size=3)
        assert counts == [3, 1] and torch.equal(first, alone) and torch.equal(mean.values, means.values)
        again = read_all(language_model(model), [list(sequence) for sequence in SEQUENCES], batch_size=3)
        assert again is first and mean_heads(model, SEQUENCES, batch_size=3) is mean
        assert counts == [3, 1]
        read_all(model, SEQUENCES, batch_size=2)  # other batches may differ in the last digits
        assert counts == [3, 1, 2, 2]
        other = read_all(model, OTHERS, batch_size=3)
        assert not torch.equal(other, first)
        assert counts == [3, 1, 2, 2, 3, 1]
    with passes(model) as counts:
        mean_heads(model, SEQUENCES, batch_size=3)
    assert counts == [3, 1]


def test_a_mean_is_the_same_whoever_reads_first(model_of):
    model = model_of("llama")
    with shared_readings():
        first = mean_heads(model, SEQUENCES, batch_size=3)
    with shared_readings():
        read_all(model, SEQUENCES, batch_size=3)
        assert torch.equal(mean_heads(model, SEQUENCES, batch_size=3).values, first.values)


def test_steered_or_hooked_a_model_reads_for_itself(model_of, model_class):
    model = model_of("llama", model_class)
    heads, values = HeadSet.all(3, 4), torch.ones(3, 4, 12)
    with shared_readings():
        plain = read_all(model, SEQUENCES)
        with steer(model, heads, values):
            steered = read_all(model, SEQUENCES)
        with shared_readings():
            handle = model.blocks[0].register_forward_hook(lambda module, inputs, output: output)
            read_all(model, SEQUENCES)  # a hook of torch's is a hook: who knows what it does
            handle.remove()
            assert read_all(model, SEQUENCES) is plain
        hook = language_model(model).hook_z(0)
        hook.add_hook(lambda z, hook: torch.zeros_like(z))
        try:
            hooked = mean_heads(model, SEQUENCES)
        finally:
            hook.remove_hooks()
        assert read_all(model, SEQUENCES) is plain
        assert torch.equal(mean_heads(model, SEQUENCES).values, plain.double().mean(dim=0).float())
    assert not torch.allclose(steered[:, 1:], plain[:, 1:], atol=1e-3)
    assert not torch.allclose(hooked.values[1:], plain.mean(dim=0)[1:], atol=1e-3)


def test_weights_that_changed_meanwhile_are_read_again(folder_of):
    model = load_model(folder_of("llama"))
    with shared_readings():
        before = read_all(model, SEQUENCES)
        with torch.no_grad():
            next(iter(language_model(model).parameters())).mul_(1.5)
        after = read_all(model, SEQUENCES)
    assert torch.equal(after, read_all(model, SEQUENCES)) and not torch.allclose(after, before, atol=1e-3)


@pytest.mark.slow
def test_models_do_not_share(folder_of, passes):
    one, other = load_model(folder_of("llama")), load_model(folder_of("llama"))
    with shared_readings(), passes(other) as counts:
        read_all(one, SEQUENCES)
        read_all(other, SEQUENCES)
    assert counts == [4]


# ------------------------------------------------------------------------------------------ prefixes


def test_replays_of_equal_prompts_read_them_once(model_of, model_class, passes):
    model = model_of("llama", model_class)
    expected, other = replayed(model), replayed(model, OTHERS)
    with shared_readings():
        assert torch.equal(replayed(model), expected)
        with passes(model) as counts:
            assert torch.equal(replayed(model), expected)
            adding = Replay(model, SEQUENCES, VERDICTS, injection=Injection(mode="add"))
            adding.logits(torch.ones(1, 3, 4, dtype=torch.bool), torch.ones(3, 4, 12))
        assert len(counts) == 2  # a pass of masks each
        assert torch.equal(replayed(model, OTHERS), other)


@pytest.mark.parametrize("option", [{"batch_size": 3}, {"memory_budget": 10**6}])
def test_other_batches_or_budgets_are_read_for_themselves(model_of, option):
    model = model_of("llama")
    with shared_readings():
        first = Replay(model, SEQUENCES, VERDICTS)
        second, third = Replay(model, SEQUENCES, VERDICTS), Replay(model, SEQUENCES, VERDICTS, **option)
        segments = [replay.prefixes.of_batch(0)[-1] for replay in (first, second, third)]
    assert segments[0] is segments[1] and segments[2] is not segments[0]


def test_a_budget_that_is_not_given_is_the_same_for_all_within(model_of, monkeypatch):
    model, free = model_of("llama"), iter([4 * 10**9, 3 * 10**9, 2 * 10**9])
    monkeypatch.setattr("arm_lens.engine.memory._free", lambda _: next(free))
    with shared_readings():
        assert len({Replay(model, SEQUENCES, VERDICTS).memory_budget for _ in range(3)}) == 1
        with memory_limit(10**8):
            assert Replay(model, SEQUENCES, VERDICTS).memory_budget == 10**8
    assert Replay(model, SEQUENCES, VERDICTS).memory_budget == 3 * 10**9 // 2


def test_prefixes_that_were_read_under_a_hook_are_nobody_elses(model_of, model_class):
    model = model_of("llama", model_class)
    expected = Prefixes(model, SEQUENCES, batch_size=4, memory_budget=1e9, progress=False).of_batch(0)[-1]
    point = language_model(model).hook_z(0)
    with shared_readings():
        disturbed = Prefixes(model, SEQUENCES, batch_size=4, memory_budget=1e9, progress=False)
        point.add_hook(lambda z, hook: torch.zeros_like(z))
        try:
            bad = disturbed.of_batch(0)[-1]
        finally:
            point.remove_hooks()
        good = Prefixes(model, SEQUENCES, batch_size=4, memory_budget=1e9, progress=False).of_batch(0)[-1]
    assert torch.equal(good.keys[2], expected.keys[2])
    assert not torch.allclose(bad.keys[2], expected.keys[2], atol=1e-3)


def test_what_is_remembered_of_prompts_stays_within_one_budget(model_of, passes):
    model = model_of("llama")
    sets = [[[*COMMON, other, token, 5] for token in range(20, 24)] for other in range(30, 36)]
    alone = Prefixes(model, sets[0], batch_size=4, memory_budget=1e9, progress=False)
    alone.of_batch(0)
    budget = 2.5 * alone.nbytes

    def read(some):
        return Prefixes(model, some, batch_size=4, memory_budget=budget, progress=False).of_batch(0)[-1]

    with shared_readings():
        first = [read(some) for some in sets]
        with passes(model) as counts:
            assert read(sets[-1]) is first[-1]
            assert counts == []
            assert read(sets[0]) is not first[0]  # it went, as the longest unused
            assert counts
            assert read(sets[-1]) is first[-1]


def test_a_shared_logit_is_that_of_the_whole_prompt(model_of, model_class):
    model = model_of("llama", model_class)
    nothing = torch.zeros(1, 3, 4, dtype=torch.bool)
    expected = torch.cat([last_logits(model, pad([sequence])) for sequence in SEQUENCES])
    with shared_readings():
        for _ in range(2):
            found = Replay(model, SEQUENCES, VERDICTS).logits(nothing, torch.zeros(3, 4, 12))[:, 0]
            torch.testing.assert_close(found, expected, atol=1e-4, rtol=0)
