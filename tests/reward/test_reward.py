"""Judges and reward models, against raw Hugging Face computations and planted heads."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from conftest import HOOKED
from tests_support import planted_model
from transformers import AutoModelForCausalLM

from arm_lens import (
    ActivationRewardModel,
    GenerativeJudge,
    HeadSet,
    Injection,
    JudgeTemplate,
    LabelledResponse,
    PreferencePair,
    Reinforce,
    load_model,
    plots,
)
from arm_lens.engine import mean_heads, pad, read_batch, resolve_verdicts
from arm_lens.judges.options import QuestionOptions, ReadingOptions
from arm_lens.judges.questions import encode_questions, questions_of
from arm_lens.reward.denoising import Denoise
from arm_lens.reward.fitting import judging_objective, means_and_objective, read_means
from arm_lens.selection import Greedy, SoftGate, TopEffect

pytestmark = pytest.mark.tl4

TEMPLATE = JudgeTemplate(
    header="", scalar="request: {prompt} reply: {response}", ranked="request: {prompt} {response_a} , {response_b}",
    cue=" verdict:", separator=" ", first=("warm",), second=("cold",), chat=False,
)  # fmt: skip
PROMPTS = ["garden", "river bridge", "tell me about the mill"]
RESPONSES = ["it is warm and bright", "cold", "the mill is noisy , really noisy !"]
QUICK = Reinforce(steps=5, masks=4)


def raw_log_probs(folder, tokenizer, texts, *, bos=True):
    """log-softmax at the last token, one text at a time, from the raw Hugging Face model."""
    model = AutoModelForCausalLM.from_pretrained(folder, attn_implementation="eager").eval()
    prefix = [tokenizer.bos_token_id] if bos else []
    ids = [[*prefix, *tokenizer.encode(text, add_special_tokens=False)] for text in texts]
    with torch.no_grad():
        return torch.cat([model(torch.tensor([one])).logits[:, -1].log_softmax(dim=-1) for one in ids])


def test_the_judges_scores_are_those_of_the_raw_model(model_of, folder_of, tokenizer, family, model_class):
    judge = GenerativeJudge(model_of(family, model_class), question=QuestionOptions(template=TEMPLATE, batch_size=2))
    texts = [f"request: {p} reply: {r} verdict:" for p, r in zip(PROMPTS, RESPONSES, strict=True)]
    bos = family in ("llama", "gpt2")  # TransformerLens feeds Qwen2 and GPT-NeoX none
    logs = raw_log_probs(folder_of(family), tokenizer, texts, bos=bos)
    yes, no = (logs[:, tokenizer.convert_tokens_to_ids(word)] for word in ("yes", "no"))
    for kind, expected in {
        "probability": yes.exp(),
        "two_way": yes.exp() / (yes.exp() + no.exp()),
        "gap": yes - no,
    }.items():
        found = judge.score(PROMPTS, RESPONSES, kind=kind)
        torch.testing.assert_close(found, expected, atol=1e-4, rtol=1e-4)


def test_a_few_shot_judge_reads_its_examples_first(model_of, folder_of, tokenizer):
    demonstrations = [LabelledResponse("mill", "cold", False), LabelledResponse("river", "warm", True)]
    judge = GenerativeJudge(model_of("llama"), question=QuestionOptions(template=TEMPLATE), examples=demonstrations)
    examples = "request: mill reply: cold verdict: no request: river reply: warm verdict: yes"
    text = f"{examples} request: garden reply: bright verdict:"
    expected = raw_log_probs(folder_of("llama"), tokenizer, [text])[0, tokenizer.convert_tokens_to_ids("yes")].exp()
    torch.testing.assert_close(judge.score(["garden"], ["bright"])[0], expected, atol=1e-5, rtol=1e-4)


def test_a_ranked_judge_asks_in_both_orders_and_changes_its_mind_with_the_order(model_of, folder_of, tokenizer):
    judge = GenerativeJudge(model_of("llama"), question=QuestionOptions(template=TEMPLATE, layout="ranked"))
    logs = raw_log_probs(
        folder_of("llama"),
        tokenizer,
        ["request: garden bright , dull verdict:", "request: garden dull , bright verdict:"],
    )
    gaps = logs[:, tokenizer.convert_tokens_to_ids("warm")] - logs[:, tokenizer.convert_tokens_to_ids("cold")]
    expected = float(gaps[0] - gaps[1]) / 2
    one, other = judge.prefer("garden", "bright", "dull"), judge.prefer("garden", "dull", "bright")
    assert one.margin == pytest.approx(expected, abs=1e-4)
    assert other.margin == pytest.approx(-expected, abs=1e-4)
    assert {one.preferred, other.preferred} == {"a", "b"}


def test_equal_responses_tie(model_of):
    assert (
        GenerativeJudge(model_of("llama"), question=QuestionOptions(template=TEMPLATE))
        .prefer("garden", "warm", "warm")
        .preferred
        == "tie"
    )


def test_a_ranked_judge_has_no_score_of_one_response(model_of):
    with pytest.raises(ValueError, match="prefer"):
        GenerativeJudge(model_of("llama"), question=QuestionOptions(template=TEMPLATE, layout="ranked")).score(
            ["garden"], ["warm"]
        )


def test_the_order_of_scores_is_the_order_given_whatever_the_lengths(model_of):
    judge = GenerativeJudge(model_of("llama"), question=QuestionOptions(template=TEMPLATE, batch_size=2))
    whole = judge.score(PROMPTS, RESPONSES)
    single = [float(judge.score([p], [r])[0]) for p, r in zip(PROMPTS, RESPONSES, strict=True)]
    torch.testing.assert_close(whole, torch.tensor(single), atol=1e-5, rtol=1e-4)


# ------------------------------------------------------------------------------------------ fitted reward models


def distinct_examples(count=12):
    places = "garden school river bridge market museum castle village library station harbor forest".split()
    return [
        LabelledResponse(places[i], "warm" if i % 2 else "cold", bool(i % 2), id=f"example {i}") for i in range(count)
    ]


def fit(model, **options):
    defaults = {"template": TEMPLATE, "demonstrations": 3, "readings": 8, "selector": QUICK}
    return ActivationRewardModel.fit(model, distinct_examples(), **grouped(defaults | options))


def grouped(options):
    """Options of question and reading, which are given among the others, where they belong; the seed is the fit's."""
    groups = {"question": QuestionOptions, "reading": ReadingOptions}
    for name, group in groups.items():
        own = {one: options[one] for one in options if one in group.model_fields and one != "seed"}
        options = {one: value for one, value in options.items() if one not in own} | {name: group(**own)}
    return options


def test_the_means_are_those_of_the_prompts_with_worked_examples(model_of):
    model = model_of("llama")
    judge = GenerativeJudge(model, question=QuestionOptions(template=TEMPLATE))
    pool = questions_of(distinct_examples(), TEMPLATE)
    means = read_means(judge, pool, reading=ReadingOptions(demonstrations=2, readings=12, seed=3))
    from arm_lens.judges.questions import sample_demonstrations

    sequences = encode_questions(
        model,
        QuestionOptions(template=TEMPLATE),
        pool,
        demonstrations=sample_demonstrations(pool, pool, 2, seed=3),
    )
    z = torch.cat([read_batch(model, pad([sequence])) for sequence in sequences])
    assert all(len(sequence) > 12 for sequence in sequences)
    torch.testing.assert_close(means.values, z.mean(dim=0), atol=1e-5, rtol=1e-4)


def test_of_a_sorted_file_that_is_longer_than_the_readings_both_kinds_are_read(model_of, monkeypatch):
    judge = GenerativeJudge(model_of("llama"), question=QuestionOptions(template=TEMPLATE))
    examples = sorted(distinct_examples(), key=lambda one: one.label)
    asked, encode = [], GenerativeJudge.encode
    monkeypatch.setattr(
        GenerativeJudge, "encode", lambda self, some, *rest: asked.append(some) or encode(self, some, *rest)
    )
    means_and_objective(judge, examples, reading=ReadingOptions(demonstrations=1, readings=8))
    read = [some for some in asked if len(some) == 4]  # of each half; six are judged
    assert [sum(one.positive for one in some) for some in read] == [2, 2]


@pytest.mark.slow
def test_no_heads_score_as_the_unsteered_judge_and_all_heads_do_not(model_of, model_class):
    model = model_of("llama", model_class)
    fitted = fit(model)
    plain = GenerativeJudge(model, question=QuestionOptions(template=TEMPLATE)).score(PROMPTS, RESPONSES)
    assert torch.equal(fitted.with_heads(HeadSet.none(3, 4)).score(PROMPTS, RESPONSES), plain)
    assert not torch.allclose(fitted.with_heads(HeadSet.all(3, 4)).score(PROMPTS, RESPONSES), plain)
    assert torch.equal(
        GenerativeJudge(model, question=QuestionOptions(template=TEMPLATE)).score(PROMPTS, RESPONSES), plain
    )  # nothing is left behind


def test_the_steered_score_is_what_raw_modules_give_with_the_means_put_in(model_of, folder_of, tokenizer):
    fitted = fit(model_of("llama"), selector=HeadSet.of(3, 4, [(0, 1), (2, 0), (2, 3)]))
    model = AutoModelForCausalLM.from_pretrained(folder_of("llama"), attn_implementation="eager").eval()
    d_head = 12

    def put_in(layer):
        def hook(_, inputs):
            z = inputs[0].clone()
            for at, head in fitted.heads:
                if at == layer:
                    z[0, -1, head * d_head : (head + 1) * d_head] = fitted.means.values[layer, head]
            return (z,)

        return hook

    for layer in range(3):
        model.model.layers[layer].self_attn.o_proj.register_forward_pre_hook(put_in(layer))
    ids = [1, *tokenizer.encode("request: garden reply: bright verdict:", add_special_tokens=False)]
    with torch.no_grad():
        expected = model(torch.tensor([ids])).logits[0, -1].softmax(dim=-1)[tokenizer.convert_tokens_to_ids("yes")]
    torch.testing.assert_close(fitted.score(["garden"], ["bright"])[0], expected, atol=1e-5, rtol=1e-4)


@pytest.mark.slow
def test_all_examples_are_read_and_chosen_on_but_none_with_a_mean_it_was_read_for(model_of):
    examples = distinct_examples()
    fitted = fit(model_of("llama"))
    assert (fitted.record.n_read, fitted.record.n_validation, fitted.record.folds) == (12, 12, 2)
    judge = GenerativeJudge(model_of("llama"), question=QuestionOptions(template=TEMPLATE))
    means, pooled = means_and_objective(
        judge, examples, reading=ReadingOptions(folds=3, demonstrations=0, readings=24, seed=4)
    )
    questions = questions_of(examples, TEMPLATE, seed=4)
    texts = [tuple(sequence) for sequence in encode_questions(judge.model, judge.question, questions)]
    chosen_on = [{tuple(sequence) for sequence in one.replay.sequences} for one in pooled.objectives]
    assert set.union(*chosen_on) == set(texts) and sum(map(len, chosen_on)) == len(texts) == 12
    for fold, objective in zip(chosen_on, pooled.objectives, strict=True):
        # Without demonstrations each is read as it is asked.
        others = [list(text) for text in texts if text not in fold]
        torch.testing.assert_close(objective.values, mean_heads(judge.model, others).values, atol=1e-5, rtol=1e-4)
    average = torch.stack([objective.values for objective in pooled.objectives]).mean(dim=0)
    torch.testing.assert_close(means.values, average)
    assert means.count == 24


def test_a_pooled_objective_is_its_parts_side_by_side(model_of):
    judge = GenerativeJudge(model_of("llama"), question=QuestionOptions(template=TEMPLATE))
    _, pooled = means_and_objective(judge, distinct_examples(), reading=ReadingOptions(demonstrations=2, readings=8))
    masks = torch.rand(4, 3, 4, generator=torch.Generator().manual_seed(0)) < 0.5
    first, second = (objective.per_example(masks) for objective in pooled.objectives)
    torch.testing.assert_close(pooled.per_example(masks), torch.cat([first, second]))
    torch.testing.assert_close(pooled(masks, [7, 0, 11]), torch.stack([second[1], first[0], second[5]]).mean(dim=0))


def test_one_fold_is_refused(model_of):
    with pytest.raises(ValueError, match="at least 2 folds"):
        fit(model_of("llama"), folds=1)


def test_given_validation_examples_are_used_and_all_examples_read(model_of):
    fitted = fit(model_of("llama"), validation=distinct_examples(4))
    assert (fitted.record.n_read, fitted.record.n_validation) == (12, 4)


@pytest.mark.slow
def test_the_same_seed_fits_the_same_reward_model(model_of):
    one, two, other = (fit(model_of("llama"), seed=seed) for seed in (5, 5, 6))
    assert one.heads == two.heads
    assert torch.equal(one.means.values, two.means.values)
    assert not torch.equal(one.means.values, other.means.values)


@pytest.mark.slow
def test_fewer_shots_are_taken_where_there_are_fewer_examples_and_this_is_recorded(model_of):
    assert fit(model_of("llama"), demonstrations=50).record.demonstrations == 5


@pytest.mark.slow
def test_pairs_are_fitted_and_preferred_in_either_layout(model_of):
    pairs = [PreferencePair(one.prompt, "warm and bright", "cold", id=one.id) for one in distinct_examples()]
    for layout in ("scalar", "ranked"):
        fitted = ActivationRewardModel.fit(
            model_of("llama"),
            pairs,
            question=QuestionOptions(template=TEMPLATE, layout=layout),
            reading=ReadingOptions(demonstrations=2, readings=4),
            selector=QUICK,
        )
        one, other = fitted.prefer("garden", "warm", "cold"), fitted.prefer("garden", "cold", "warm")
        assert one.margin == pytest.approx(-other.margin, abs=1e-5)


def test_validation_examples_of_one_kind_are_refused(model_of):
    with pytest.raises(ValueError, match="1 validation questions are all positive: check the labels"):
        fit(model_of("llama"), validation=[LabelledResponse("garden", "warm", True)])


@pytest.mark.slow
def test_it_is_a_trl_reward_function(model_of):
    fitted = fit(model_of("llama"))
    found = fitted(
        prompts=[[{"role": "user", "content": "garden"}], [{"role": "user", "content": "river"}]],
        completions=[[{"role": "assistant", "content": "warm"}], [{"role": "assistant", "content": "cold"}]],
        completion_ids=[[1], [2]],
        trainer_state=None,
    )
    assert found == pytest.approx(fitted.score(["garden", "river"], ["warm", "cold"]).tolist(), abs=1e-6)
    assert all(isinstance(one, float) for one in found)
    assert fitted.__name__ == "activation_reward_model"  # TRL asks for it


@pytest.mark.slow
def test_the_name_under_which_trl_logs_is_the_criterion(model_of):
    assert fit(model_of("llama"), criterion="warm").__name__ == "warm"


@pytest.mark.slow
def test_examples_of_several_criteria_are_refused_and_one_is_taken_over(model_of):
    import dataclasses

    named = [dataclasses.replace(one, criterion="warm") for one in distinct_examples()]
    options = grouped({"template": TEMPLATE, "demonstrations": 2, "readings": 2, "selector": QUICK})
    assert ActivationRewardModel.fit(model_of("llama"), named, **options).record.criterion == "warm"
    named[3] = dataclasses.replace(named[3], criterion="bright")
    with pytest.raises(ValueError, match="bright, warm"):
        ActivationRewardModel.fit(model_of("llama"), named, **options)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(6))
def test_a_handful_of_pairs_is_enough_for_the_ranked_layout(model_of, seed):
    pairs = [PreferencePair(one.prompt, "warm and bright", "cold", id=one.id) for one in distinct_examples(4)]
    ActivationRewardModel.fit(
        model_of("llama"),
        pairs,
        question=QuestionOptions(template=TEMPLATE, layout="ranked"),
        reading=ReadingOptions(readings=2),
        selector=QUICK,
        seed=seed,
    )


def test_margins_of_unequal_lengths_are_refused(model_of):
    judge = GenerativeJudge(model_of("llama"), question=QuestionOptions(template=TEMPLATE))
    with pytest.raises(ValueError, match="2 prompts for 1 first and 3 second"):
        judge.margins(["garden", "mill"], ["a"], ["b", "c", "d"])


@pytest.mark.any_tl
@pytest.mark.slow
@pytest.mark.parametrize("seed", range(10))
def test_exactly_the_planted_heads_are_found(seed, tokenizer, tmp_path_factory):
    """In `planted_model` the verdict turns on the last token's class, which three heads of the bare prompt hide."""
    planted = planted_model(tokenizer, tmp_path_factory, seed=seed)
    judge = GenerativeJudge(planted.model, question=QuestionOptions(template=planted.template))
    questions = questions_of(planted.examples, planted.template)
    objective = judging_objective(judge, questions, planted.means)
    from arm_lens.selection import reinforce

    found = reinforce(objective, 3, 4, n_examples=len(questions), options=Reinforce(steps=200), seed=seed)
    assert found.heads == planted.heads


# ------------------------------------------------------------------------------------------ other searches, other means

SELECTORS = [QUICK, TopEffect(), Greedy(max_heads=2), SoftGate(steps=3), SoftGate(steps=3, discrete=True)]


@pytest.mark.slow
@pytest.mark.parametrize("selector", SELECTORS, ids=lambda one: type(one).__name__)
def test_every_search_gives_a_reward_model_that_round_trips_exactly(model_of, tmp_path, model_class, selector):
    model = model_of("llama", model_class)
    fitted = fit(model, selector=selector, injection=Injection(strength=0.5))
    assert fitted.record.search == selector.resolved((3, 4)).model_dump(mode="json")
    loaded = ActivationRewardModel.load(fitted.save(tmp_path / "rm"), model)
    assert (loaded.record, loaded.heads, repr(loaded)) == (fitted.record, fitted.heads, repr(fitted))
    drawn = plots.selected_heads if isinstance(selector, TopEffect | Greedy) else plots.selection_probabilities
    assert fitted.plot().to_json() == drawn(fitted).to_json()
    one, other = loaded.selection, fitted.selection
    assert one.head_scores.name == other.head_scores.name and torch.equal(
        one.head_scores.values, other.head_scores.values
    )
    assert one.history.equals(other.history)
    for found, expected in ((one.trajectory, other.trajectory), (one.gates, other.gates)):
        assert found is expected is None or torch.equal(found, expected)
    assert torch.equal(loaded.chosen, other.gates) if other.gates is not None else loaded.chosen == fitted.heads
    assert torch.equal(loaded.score(PROMPTS, RESPONSES), fitted.score(PROMPTS, RESPONSES))


@pytest.mark.any_tl
@pytest.mark.slow
@pytest.mark.parametrize("selector", SELECTORS, ids=lambda one: type(one).__name__)
def test_every_search_gives_the_same_for_the_same_seed_and_leaves_no_gradient(model_of, selector):
    model = model_of("gpt2")
    one, two = (fit(model, selector=selector, seed=3) for _ in range(2))
    assert torch.equal(one.selection.head_scores.values, two.selection.head_scores.values) and one.heads == two.heads
    assert all(weight.grad is None and weight.requires_grad for weight in model.parameters())


def test_gates_score_as_raw_modules_do_with_each_head_moved_so_far(model_of, folder_of, tokenizer):
    fitted = fit(model_of("llama"), selector=SoftGate(steps=4))
    model = AutoModelForCausalLM.from_pretrained(folder_of("llama"), attn_implementation="eager").eval()

    def move(layer):
        def hook(_, inputs):
            z = inputs[0].clone().unflatten(-1, (4, 12))
            gates = fitted.selection.gates[layer][:, None]
            z[0, -1] = (1 - gates) * z[0, -1] + gates * fitted.means.values[layer]
            return (z.flatten(-2),)

        return hook

    for layer in range(3):
        model.model.layers[layer].self_attn.o_proj.register_forward_pre_hook(move(layer))
    ids = [1, *tokenizer.encode("request: garden reply: bright verdict:", add_special_tokens=False)]
    with torch.no_grad():
        expected = model(torch.tensor([ids])).logits[0, -1].softmax(dim=-1)[tokenizer.convert_tokens_to_ids("yes")]
    found = fitted.score(["garden"], ["bright"])[0]
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-4)
    as_a_set = fitted.with_heads(fitted.heads)
    assert as_a_set.chosen == fitted.heads
    two = [one.score(PROMPTS, RESPONSES, kind="gap") for one in (fitted, as_a_set)]
    assert not torch.allclose(*two, atol=1e-2)


def test_a_search_by_gradient_refuses_the_accuracy(model_of):
    with pytest.raises(ValueError, match="accuracy has no gradient"):
        fit(model_of("llama"), selector=SoftGate(steps=1), reward="accuracy")


@pytest.mark.slow
@pytest.mark.parametrize("selector", [QUICK, HeadSet.of(3, 4, [(0, 1), (2, 0)])], ids=["search", "given heads"])
def test_a_denoised_reward_model_round_trips_and_says_so(model_of, tmp_path, selector):
    plain, denoised = (fit(model_of("llama"), selector=selector, denoise=one) for one in (None, Denoise(explained=0.6)))
    assert plain.record.denoise is None
    assert denoised.record.denoise == {"explained": 0.6, "weighted": True}
    assert not torch.allclose(denoised.means.values, plain.means.values, atol=1e-3)
    assert denoised.means.count == plain.means.count == 8
    loaded = ActivationRewardModel.load(denoised.save(tmp_path / "rm"), model_of("llama"))
    assert loaded.record == denoised.record
    assert torch.equal(loaded.means.values, denoised.means.values)
    assert torch.equal(loaded.score(PROMPTS, RESPONSES), denoised.score(PROMPTS, RESPONSES))


@pytest.mark.slow
def test_denoising_that_takes_nothing_out_fits_the_same_means(model_of):
    nothing = Denoise(explained=1.0, weighted=False)
    plain, denoised = (fit(model_of("llama"), denoise=one) for one in (None, nothing))
    torch.testing.assert_close(denoised.means.values, plain.means.values, atol=1e-5, rtol=0)


# ------------------------------------------------------------------------------------------ saving and loading


@pytest.mark.slow
def test_saving_and_loading_round_trips_exactly(model_of, tmp_path, model_class):
    model = model_of("llama", model_class)
    template = replace(TEMPLATE, header="criterion: {criterion} . ")
    fitted = fit(model, criterion="warm", criterion_text="The reply is warm.", template=template)
    loaded = ActivationRewardModel.load(fitted.save(tmp_path / "warm"), model)
    assert loaded.heads == fitted.heads
    assert torch.equal(loaded.means.values, fitted.means.values)
    assert torch.equal(loaded.selection.head_scores.values, fitted.selection.head_scores.values)
    assert torch.equal(loaded.selection.trajectory, fitted.selection.trajectory)
    assert loaded.selection.history.equals(fitted.selection.history)
    assert loaded.selection.passes == fitted.selection.passes > 0
    assert (loaded.record, loaded.injection, loaded.judge.template) == (fitted.record, fitted.injection, template)
    assert torch.equal(loaded.score(PROMPTS, RESPONSES), fitted.score(PROMPTS, RESPONSES))


@pytest.mark.slow
def test_how_heads_were_searched_is_recorded(model_of, tmp_path):
    fitted = fit(model_of("llama"))
    assert ActivationRewardModel.load(fitted.save(tmp_path / "rm")).record.search["steps"] == QUICK.steps
    assert fit(model_of("llama"), selector=HeadSet.none(3, 4)).record.search is None


@pytest.mark.slow
@pytest.mark.skipif(not HOOKED, reason="this TransformerLens has no HookedTransformer")
def test_both_classes_may_share_a_reward_model_in_bfloat16_but_another_dtype_may_not(folder_of, tmp_path):
    from arm_lens.judges.artefact import WrongModelError

    folder = fit(load_model(folder_of("gpt2"), dtype=torch.bfloat16)).save(tmp_path / "rm")
    hooked = load_model(folder_of("gpt2"), dtype=torch.bfloat16, model_class="HookedTransformer")
    assert ActivationRewardModel.load(folder, hooked).heads is not None
    with pytest.raises(WrongModelError, match="dtype = bfloat16"):
        ActivationRewardModel.load(folder, load_model(folder_of("gpt2")))


@pytest.mark.slow
def test_without_a_model_the_recorded_one_is_loaded(model_of, tmp_path):
    fitted = fit(model_of("llama"))
    loaded = ActivationRewardModel.load(fitted.save(tmp_path / "rm"))
    assert torch.equal(loaded.score(PROMPTS, RESPONSES), fitted.score(PROMPTS, RESPONSES))


def test_the_record_says_what_was_read_where_and_with_which_versions(model_of, tmp_path):
    import json

    folder = fit(model_of("llama"), criterion="warm", seed=4).save(tmp_path / "rm")
    record = json.loads((folder / "judge.json").read_text())
    assert record["hook"] == "blocks.{layer}.attn.hook_z"
    assert "last token" in record["token_position"]
    assert record["model"]["architecture"] == "LlamaForCausalLM"
    assert (record["model"]["weight_processing"], record["model"]["dtype"]) == ("raw", "float32")
    assert record["fit"]["seed"] == 4
    assert set(record["versions"]) == {"arm-lens", "torch", "transformer-lens", "transformers"}


def test_another_model_is_refused_by_its_shape(model_of, tmp_path):
    from arm_lens.judges.artefact import WrongModelError

    folder = fit(model_of("llama")).save(tmp_path / "rm")
    with pytest.raises(WrongModelError, match=r"d_head = 12.*d_head = 8"):
        ActivationRewardModel.load(folder, model_of("qwen2"))


@pytest.mark.slow
def test_other_weights_of_the_same_shape_are_refused(model_of, folder_of, tmp_path):
    from arm_lens.judges.artefact import WrongModelError

    folder = fit(model_of("llama")).save(tmp_path / "rm")
    changed = AutoModelForCausalLM.from_pretrained(folder_of("llama"))
    with torch.no_grad():
        changed.model.layers[0].self_attn.v_proj.weight.mul_(1.05)
    changed.save_pretrained(tmp_path / "tuned")
    model_of("llama").tokenizer.save_pretrained(tmp_path / "tuned")
    with pytest.raises(WrongModelError, match="computes other activations"):
        ActivationRewardModel.load(folder, load_model(tmp_path / "tuned"))


@pytest.mark.slow
def test_other_weight_processing_is_refused_and_named(folder_of, tmp_path):
    from arm_lens.judges.artefact import WrongModelError

    model = load_model(folder_of("gpt2"))
    folder = fit(model).save(tmp_path / "rm")
    processed = load_model(folder_of("gpt2"))
    processed.enable_compatibility_mode(disable_warnings=True)
    with pytest.raises(WrongModelError, match="weight_processing: raw then, compatibility mode now"):
        ActivationRewardModel.load(folder, processed)


def test_a_folder_without_a_reward_model_is_refused(tmp_path):
    with pytest.raises(FileNotFoundError, match="holds no reward model"):
        ActivationRewardModel.load(tmp_path)


def test_verdicts_resolve_for_the_test_template(tokenizer):
    assert resolve_verdicts(tokenizer, TEMPLATE.yes, TEMPLATE.no).positive


@pytest.mark.slow
@pytest.mark.parametrize("talk", [False, True])
def test_an_objective_is_what_the_reward_model_says_with_any_heads(model_of, talk):
    fitted = fit(model_of("llama"))

    def said(text):
        return ({"role": "user", "content": text},) if talk else text

    pairs = [PreferencePair(said(p), "warm", "cold") for p in ("garden", "river", "garden")]
    objective = fitted.objective(pairs)
    heads = HeadSet.of(3, 4, [(0, 1), (2, 3)])
    gaps = fitted.with_heads(heads).score(
        [pair.prompt for pair in pairs for _ in range(2)], ["warm", "cold"] * 3, kind="gap"
    )
    signs = torch.tensor([1.0, -1.0] * 3)
    torch.testing.assert_close(objective.margins(heads.mask[None])[:, 0], gaps * signs, atol=1e-4, rtol=1e-4)
    probabilities = objective(heads.mask[None])
    torch.testing.assert_close(probabilities[0], torch.sigmoid(gaps * signs).mean(), atol=1e-4, rtol=1e-4)
    first, second, third = objective.clusters[::2]
    assert first == third != second and objective.clusters[::2] == objective.clusters[1::2]
