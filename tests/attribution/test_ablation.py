"""Heads knocked out, against raw Hugging Face passes head by head, and on planted heads."""

from __future__ import annotations

import pytest
import torch
from conftest import HOOKED
from tests_support import OUTPUT_PROJECTION, planted_model
from transformers import AutoModelForCausalLM

from arm_lens import ActivationRewardModel, HeadSet, Injection
from arm_lens.attribution.ablation import ablation
from arm_lens.attribution.few_shot import few_shot_objective
from arm_lens.engine import Replay, VerdictTokens
from arm_lens.judge_model import labelled_responses
from arm_lens.judges.generative import GenerativeJudge
from arm_lens.judges.options import QuestionOptions, ReadingOptions
from arm_lens.judges.questions import questions_of
from arm_lens.reward.fitting import judging_objective
from arm_lens.selection import JudgingObjective

pytestmark = pytest.mark.tl4

SEQUENCES = [[1, 9, 30, 41, 52], [1, 77, 14], [1, 20, 21, 22, 23, 24, 25], [1, 8, 100, 3]]
LABELS = [True, False, False, True]
VERDICTS = VerdictTokens((5,), (6, 7))
HEADS = [(0, 1), (1, 3), (2, 0)]
OLD_CLASS = "HookedTransformer" if HOOKED else "TransformerBridge"
FAMILIES = [("llama", "TransformerBridge"), ("gpt2", "TransformerBridge"), ("gpt_neox", OLD_CLASS)]


@pytest.fixture(params=FAMILIES, ids=lambda one: one[0])
def both(request, folder_of, model_of):
    """A raw Hugging Face model, a function that changes what enters its output projections, and arm_lens' model."""
    family, model_class = request.param
    raw = AutoModelForCausalLM.from_pretrained(folder_of(family)).eval()
    return raw, OUTPUT_PROJECTION[family], model_of(family, model_class)


def objective_of(model, **options):
    values = torch.randn(3, 4, model.cfg.d_head, generator=torch.Generator().manual_seed(3))
    return JudgingObjective(Replay(model, SEQUENCES, VERDICTS, batch_size=2, **options), values, LABELS)


def raw_inputs(raw, name):
    """Per prompt, what enters each output projection, [layer, pos, head, d_head]."""
    found = []
    for sequence in SEQUENCES:
        seen = []
        hooks = [
            raw.get_submodule(name.format(layer)).register_forward_pre_hook(
                lambda _, args, to=seen: to.append(args[0][0])
            )
            for layer in range(3)
        ]
        with torch.no_grad():
            raw(torch.tensor([sequence]))
        for hook in hooks:
            hook.remove()
        found.append(torch.stack(seen).unflatten(-1, (4, -1)))
    return found


def raw_margin(raw, name, number, layer=0, head=0, written=None, positions="all"):
    """Log P(right) - log P(wrong) of one prompt by one raw pass; ``written`` is [pos, d_head] or [d_head]."""

    def write(_, args):
        z = args[0].clone().unflatten(-1, (4, -1))
        if positions == "last":
            z[0, -1, head] = written[-1] if written.ndim == 2 else written
        else:
            z[0, :, head] = written
        return (z.flatten(-2),)

    hook = None if written is None else raw.get_submodule(name.format(layer)).register_forward_pre_hook(write)
    with torch.no_grad():
        logits = raw(torch.tensor([SEQUENCES[number]])).logits[0, -1].double()
    if hook:
        hook.remove()
    gap = logits[5] - logits[[6, 7]].logsumexp(dim=0)
    return gap if LABELS[number] else -gap


def outcome(margin, kind):
    return {"gap": margin, "probability": torch.sigmoid(margin), "accuracy": (margin > 0).double()}[kind]


def compare(found, expected_margins, before):
    """``expected_margins`` maps a head to its margins [prompt, resample]."""
    for (layer, head), margins in expected_margins.items():
        for kind in ("gap", "probability", "accuracy"):
            lost = outcome(before, kind)[:, None] - outcome(margins, kind)
            assert float(found.values[kind][layer, head]) == pytest.approx(float(lost.mean()), abs=2e-5), kind
            errors = lost.mean(dim=1).std() / len(before) ** 0.5
            assert float(found.errors[kind][layer, head]) == pytest.approx(float(errors), abs=2e-5)
    gaps = [before[:, None] - margins for margins in expected_margins.values()]
    assert max(float(one.mean().abs()) for one in gaps) > 1e-2


@pytest.mark.parametrize("positions", ["last", "all"])
@pytest.mark.parametrize("kind", ["zero", "mean"])
def test_knocking_out_is_what_raw_passes_lose(both, kind, positions):
    raw, name, model = both
    z = raw_inputs(raw, name)
    tokens = torch.cat([one[:, -1:] if positions == "last" else one for one in z], dim=1)
    written = tokens.mean(dim=1) if kind == "mean" else torch.zeros_like(tokens[:, 0])
    before = torch.stack([raw_margin(raw, name, number) for number in range(4)])
    expected = {
        (layer, head): torch.stack(
            [raw_margin(raw, name, number, layer, head, written[layer, head], positions) for number in range(4)]
        )[:, None]
        for layer, head in HEADS
    }
    # Ablation writes in its own way, whatever the objective's.
    objective = objective_of(model, injection=Injection(mode="add", strength=0.3))
    found = ablation(objective, kind, positions=positions, batch_size=3)
    compare(found, expected, before)
    assert found.measure == f"ablation_{kind}" and found.n == found.n_clusters == 4
    assert all(not one.any() for one in found.sampling_errors.values())


def aligned(donor, length):
    """The donor's last token stands last; what is missing in front is filled from its end again."""
    row = donor
    while len(row) < length:
        row = torch.cat([donor, row])
    return row[-length:]


@pytest.mark.slow
@pytest.mark.parametrize("positions", ["last", "all"])
def test_resampling_with_every_other_question_is_exact(both, positions):
    raw, name, model = both
    z = raw_inputs(raw, name)
    before = torch.stack([raw_margin(raw, name, number) for number in range(4)])
    expected = {}
    for layer, head in HEADS:
        rows = [
            [
                raw_margin(
                    raw, name, number, layer, head, aligned(z[other][layer, :, head], len(SEQUENCES[number])), positions
                )
                for other in range(4)
                if other != number
            ]
            for number in range(4)
        ]
        expected[layer, head] = torch.tensor(rows)
    found = ablation(objective_of(model), "resample", positions=positions, resamples=8)
    compare(found, expected, before)
    assert all(float(one.abs().max()) == 0 for one in found.sampling_errors.values())


@pytest.mark.slow
def test_the_sampling_error_is_how_far_samples_scatter_around_all_of_them(model_of):
    model = model_of("llama")
    generator = torch.Generator().manual_seed(5)
    sequences = [[1, *torch.randint(3, 200, (4,), generator=generator).tolist()] for _ in range(8)]
    objective = JudgingObjective(Replay(model, sequences, VERDICTS), torch.zeros(3, 4, 12), LABELS * 2)
    exact = ablation(objective, "resample", resamples=7)
    some = [ablation(objective, "resample", resamples=3, seed=seed) for seed in range(15)]
    z = torch.stack([(one.values["gap"] - exact.values["gap"]) / one.sampling_errors["gap"] for one in some])
    assert 0.7 < float(z.square().mean().sqrt()) < 1.4
    torch.testing.assert_close(some[0].values["gap"], ablation(objective, "resample", resamples=3).values["gap"])
    assert not torch.equal(some[0].values["gap"], some[1].values["gap"])


def test_examples_of_one_cluster_count_as_one(model_of):
    model = model_of("llama")
    replay = Replay(model, SEQUENCES * 2, VERDICTS)
    values = torch.zeros(3, 4, 12)
    alone = JudgingObjective(replay, values, LABELS * 2)
    twice = JudgingObjective(replay, values, LABELS * 2, clusters=[0, 1, 2, 3] * 2)
    once = JudgingObjective(Replay(model, SEQUENCES, VERDICTS), values, LABELS)
    errors = [ablation(one, "zero").errors["gap"] for one in (alone, twice, once)]
    torch.testing.assert_close(errors[1], errors[2], atol=1e-6, rtol=1e-4)
    assert (errors[0] < errors[1]).all()


# ------------------------------------------------------------------------------------------ planted heads


@pytest.fixture(scope="module")
def planted(tokenizer, tmp_path_factory):
    return planted_model(tokenizer, tmp_path_factory, seed=1)


@pytest.fixture(scope="module")
def planted_objective(planted):
    judge = GenerativeJudge(planted.model, question=QuestionOptions(template=planted.template))
    return judging_objective(judge, questions_of(planted.examples, planted.template), planted.means)


@pytest.mark.slow
@pytest.mark.parametrize("positions", ["last", "all"])
@pytest.mark.parametrize("kind", ["zero", "mean", "resample"])
def test_only_the_reader_tells_questions_apart(planted, planted_objective, kind, positions):
    found = ablation(planted_objective, kind, positions=positions, resamples=11)
    gap = found.values["gap"]
    others = ~HeadSet.of(3, 4, [planted.reader]).mask
    # The planted heads lean towards No by the same on all questions, of which half are to be answered Yes: no gap is won
    # or lost on average, by whatever is written, but for what the last norm makes of a smaller or larger input.
    assert float(gap[planted.reader]) > 1
    assert (gap[others].abs() < 0.1 * gap[planted.reader]).all()
    lean = found.errors["gap"][planted.heads.mask]
    if kind == "zero":  # it takes the lean away, which each question feels with its own sign
        assert (lean > 0.1).all()
    else:  # it leaves the lean as it was
        assert (lean < 1e-2).all()


def test_what_idle_and_unwritten_heads_hold_is_no_matter(planted, planted_objective):
    found = ablation(planted_objective, "zero")
    idle = ~(planted.heads.mask | HeadSet.of(3, 4, [planted.reader]).mask)  # the harmful ones hold 0 as they are
    for outcome_name in ("accuracy", "probability", "gap"):
        nothing = torch.zeros(8, dtype=torch.float64)  # but for the last digit of passes of one mask and of twelve
        torch.testing.assert_close(found.values[outcome_name][idle], nothing, atol=1e-6, rtol=0)


# ------------------------------------------------------------------------------------------ demonstrations


@pytest.mark.slow
def test_worked_examples_of_the_bundled_judge_are_used_by_early_tokens(judge):
    pool = labelled_responses("positive", 10, split="train", seed=0)
    questions = labelled_responses("positive", 8, split="test", seed=0)
    reward = ActivationRewardModel.fit(
        judge, pool, selector=HeadSet.none(6, 8), reading=ReadingOptions(readings=2, demonstrations=4)
    )
    objective = few_shot_objective(reward, questions, pool, demonstrations=8)
    bare = reward.objective(questions)
    assert len(objective) == len(bare) == 8 and objective.clusters == bare.clusters
    none = torch.zeros(1, 6, 8, dtype=torch.bool)
    accuracy = [(one.margins(none) > 0).float().mean() for one in (objective, bare)]
    assert accuracy[0] > 0.9 > accuracy[1]
    for long, short in zip(objective.replay.sequences, bare.replay.sequences, strict=True):
        assert long[0] == short[0] and long[-len(short) + 1 :] == short[1:]  # the question itself comes last


def test_no_question_is_shown_its_own_prompt(judge):
    examples = labelled_responses("positive", 6, split="train", seed=0)
    reward = ActivationRewardModel.fit(
        judge, examples, selector=HeadSet.none(6, 8), reading=ReadingOptions(readings=2, demonstrations=2)
    )
    objective = few_shot_objective(reward, examples, examples, demonstrations=5)
    for sequence in objective.replay.sequences:
        text = judge.tokenizer.decode(sequence)
        replies = text.split("request:")[1:]
        assert len(replies) == 6 and len({reply.split("verdict:")[0] for reply in replies}) == 6
    with pytest.raises(
        ValueError, match=r"6 demonstrations are wanted for .*but there are 5 about another prompt or text"
    ):
        few_shot_objective(reward, examples, examples, demonstrations=6)


def test_one_resample_cannot_estimate_its_own_error(planted_objective):
    with pytest.raises(ValueError, match="at least 2 resamples"):
        ablation(planted_objective, "resample", resamples=1)


def test_one_question_cannot_be_resampled(planted):
    replay = Replay(planted.model, [[1, 5, 6]], VERDICTS)
    objective = JudgingObjective(replay, planted.means.values, [True])
    with pytest.raises(ValueError, match="there is 1 question"):
        ablation(objective, "resample")
