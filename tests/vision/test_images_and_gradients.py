"""Gradients, searches by gradient, half precision and small memory on prompts with images."""

from __future__ import annotations

import pytest
import torch
from vision_examples import EXAMPLES, OPTIONS, TEMPLATE, arm, asked
from vision_models import FAMILIES

from arm_lens import LabelledResponse, load_model
from arm_lens.attribution import gradient_attribution
from arm_lens.engine import Replay, language_model, pad
from arm_lens.engine.gates import gap_slopes
from arm_lens.engine.reading import read_all
from arm_lens.judges.questions import encode_questions, questions_of, verdict_tokens_of
from arm_lens.selection import JudgingObjective, SoftGate

pytestmark = pytest.mark.filterwarnings("ignore:the reward model was fitted on 4 of these 4 examples")
families = pytest.mark.parametrize("family", ["llava", "idefics3"])
STEP = 1e-2


@pytest.fixture
def objective_of(seeing_of):
    """objective_of(family): a judging objective on four pictures, with random values to write, of the size of activations."""

    def make(family: str) -> JudgingObjective:
        objective = arm(seeing_of(family).model).objective(EXAMPLES)
        replay = objective.replay
        size = read_all(replay.model, replay.sequences, batch_size=4).abs().mean()
        generator = torch.Generator().manual_seed(0)
        values = 4 * size * torch.randn(objective.values.shape, generator=generator)
        return JudgingObjective(replay, values, objective.labels.tolist(), "margin")

    return make


def gates_for(objective, seed=1):
    return 0.2 + 0.6 * torch.rand(objective.shape, generator=torch.Generator().manual_seed(seed))


def differences(objective, gates):
    """The central difference of the mean reward in each gate."""
    found = torch.zeros(objective.shape)
    with torch.no_grad():
        for place in torch.cartesian_prod(*map(torch.arange, objective.shape)).tolist():
            step = torch.zeros(objective.shape).index_put(tuple(map(torch.tensor, place)), torch.tensor(STEP))
            ends = [objective.gated(gates + sign * step).double().mean() for sign in (1, -1)]
            found[tuple(place)] = float((ends[0] - ends[1]) / (2 * STEP))
    return found


@pytest.mark.slow
@families
def test_the_gradient_of_gates_is_the_finite_difference(family, objective_of):
    objective = objective_of(family)
    gates = gates_for(objective).requires_grad_()
    [found] = torch.autograd.grad(objective.gated(gates).mean(), gates)
    expected = differences(objective, gates.detach())
    assert expected.abs().min() > 0 and expected.abs().max() > 1e-3
    torch.testing.assert_close(found, expected, atol=0.02 * float(expected.abs().max()), rtol=0.02)


@families
def test_gradient_attribution_is_the_finite_difference_at_nothing_written(family, objective_of):
    objective = objective_of(family)
    slopes, _ = gap_slopes(objective.replay, objective.values)
    signs = torch.where(objective.labels, 1.0, -1.0)
    found = gradient_attribution(objective).values["gap"].float()
    torch.testing.assert_close(found, (signs[:, None, None] * slopes).mean(dim=0).float(), atol=1e-5, rtol=1e-4)
    none = torch.zeros(objective.shape)
    with torch.no_grad():
        before = objective.gated(none).double().mean()
        for layer, head in ((0, 0), (1, 3), (2, 1)):
            steps = [none.index_put((torch.tensor(layer), torch.tensor(head)), torch.tensor(k * STEP)) for k in (1, 2)]
            one, two = (objective.gated(gates).double().mean() for gates in steps)
            slope = float((-3 * before + 4 * one - two) / (2 * STEP))
            assert float(found[layer, head]) == pytest.approx(slope, abs=0.02 * float(found.abs().max()))


def test_a_search_by_gradient_begins_along_the_finite_difference(objective_of):
    objective = objective_of("llava")
    start = torch.full(objective.shape, 0.5)
    slopes = differences(objective, start)
    search = SoftGate(steps=1, learning_rate=0.1, initial_logit=0.0, head_penalty=0.0)
    moved = torch.logit(search.select(objective).gates)
    sure = slopes.abs() > 0.05 * slopes.abs().max()
    assert sure.sum() >= 6
    torch.testing.assert_close(moved[sure], 0.1 * slopes.sign()[sure], atol=1e-4, rtol=0)


def prompts_of(model, count):
    examples = [LabelledResponse(asked(40 + number), f"answer {number}", True) for number in range(count)]
    return encode_questions(model, OPTIONS, questions_of(examples, TEMPLATE))


@pytest.mark.parametrize("family", [one for one in ("llava", "qwen2_5_vl") if one in FAMILIES])
def test_in_bfloat16_images_are_read_as_the_raw_model_reads_them(family, seeing_of):
    seeing = seeing_of(family)
    exact = seeing.model
    half = language_model(load_model(exact.info.name, dtype="bfloat16"))
    assert half.findings.blind is None and half.dtype == torch.bfloat16
    prompts = prompts_of(half, 3)
    expected = read_all(exact, prompts_of(exact, 3), batch_size=1)
    spread = expected.std(dim=0)
    together, alone = (read_all(half, prompts, batch_size=size).float() for size in (3, 1))
    for found in (together, alone):
        off = (found - expected).abs().mean()
        assert 0 < off < 0.02 * expected.abs().mean() and off < 0.2 * spread.mean()  # prompts differ by more than that
    logits = [half.last_logits(pad(some)).float() for some in (prompts, prompts[:1])]
    torch.testing.assert_close(logits[0][:1], logits[1], atol=0.05, rtol=0.05)


@families
def test_prompts_too_many_for_the_memory_are_read_again_and_give_the_same(family, seeing_of):
    model = seeing_of(family).model
    prompts, verdicts = prompts_of(model, 8), verdict_tokens_of(model.tokenizer, OPTIONS)
    generator = torch.Generator().manual_seed(0)
    masks = torch.rand(6, model.n_layers, model.n_heads, generator=generator) < 0.4
    values = torch.randn(model.n_layers, model.n_heads, model.d_head, generator=generator)
    ample = Replay(model, prompts, verdicts, memory_budget=2**33)
    expected = ample.log_probs(masks, values)
    budget = ample.nbytes  # of which half is for prompts
    replay = Replay(model, prompts, verdicts, memory_budget=budget)
    read = []
    prefill = model.prefill
    try:
        model.prefill = lambda *some, **named: read.append(1) or prefill(*some, **named)
        found = [replay.log_probs(masks, values) for _ in range(2)]
        again = len(read)
        read.clear()
        ample.log_probs(masks, values)
    finally:
        del model.prefill
    for one in found:
        torch.testing.assert_close(one, expected, atol=1e-4, rtol=0)
    shared = sum(segment.nbytes for segment in replay.prefixes.of_batch(0)[:-1])  # which is always stored
    assert replay.nbytes - shared <= budget / 2 and again > 0 and not read
