"""A fit may be interrupted anywhere and goes on to the same bytes; it says what it did not like; NaN is never a result."""

from __future__ import annotations

import os
import warnings
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.nn.modules.module import register_module_forward_pre_hook

from arm_lens import ActivationRewardModel, GenerativeJudge, HeadSet, LabelledResponse, load_model
from arm_lens.engine import shared_readings
from arm_lens.engine.finite import NotFiniteError
from arm_lens.engine.reading import HeadMeans
from arm_lens.engine.weights import WeightsChangedError
from arm_lens.heads import HeadScores
from arm_lens.judges.options import Denoise, QuestionOptions, ReadingOptions
from arm_lens.judges.template import JudgeTemplate
from arm_lens.reward import FitWarning
from arm_lens.reward.fitting import means_and_objective
from arm_lens.selection import AllHeads, Greedy, RandomHeads, Reinforce, SoftGate, TopEffect
from arm_lens.storage import LOCK, DamagedFileError, write_bytes

TEMPLATE = JudgeTemplate(
    scalar="request: {prompt} reply: {response}", cue=" verdict:", yes=("yes",), no=("no",), chat=False
)
WORDS = ["garden", "river", "mill", "church", "hotel", "farm"]
EXAMPLES = [LabelledResponse(f"the {one}", f"{one} it is", bool(i % 2), id=one) for i, one in enumerate(WORDS)]
PROMPTS, RESPONSES = ["the garden", "a mill", "the farm"], ["it is warm", "cold .", "a river"]
FEW_POSITIVE = [replace(one, label=i < 2) for i, one in enumerate(EXAMPLES)]
QUICK = Reinforce(steps=5, masks=4, examples_per_step=2, final="best_of", best_of=3)


def fit(model, examples=EXAMPLES, **options) -> ActivationRewardModel:
    options = {
        "question": QuestionOptions(template=TEMPLATE),
        "reading": ReadingOptions(readings=4, demonstrations=1),
        "criterion": "warm",
        "selector": QUICK,
    } | options
    return ActivationRewardModel.fit(model, examples, **options)


def saved_bytes(reward: ActivationRewardModel, folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in reward.save(folder).iterdir() if path.name != LOCK}


class Died(BaseException):
    """A kill, or a full disk."""


def dies_at(monkeypatch, step: int):
    """Let the process die when it flushes a file for the given time."""
    real, calls = os.fsync, []

    def fsync(descriptor: int) -> None:
        calls.append(descriptor)
        if len(calls) > step:
            raise Died
        real(descriptor)

    monkeypatch.setattr(os, "fsync", fsync)


# ------------------------------------------------------------------------------------------ interrupted


@pytest.mark.slow
@pytest.mark.parametrize(
    "selector",
    [QUICK, Greedy(max_heads=2), TopEffect(), RandomHeads(like=QUICK), SoftGate(steps=2), HeadSet.of(3, 4, [(0, 1)])],
    ids=lambda one: getattr(one, "kind", "given"),
)
def test_an_interrupted_fit_goes_on_to_the_same_bytes(model_of, tmp_path, monkeypatch, selector):
    model, folder, died = model_of("llama"), tmp_path / "kept", 0
    expected = saved_bytes(fit(model, selector=selector), tmp_path / "plain")
    for step in range(0, 40, 4):
        with monkeypatch.context() as patched:
            dies_at(patched, step)
            try:
                fit(model, selector=selector, checkpoint=folder)
            except Died as error:
                died += 1
                noted = "".join(getattr(error, "__notes__", []))
                assert not list(folder.glob("*.safetensors")) or str(folder) in noted
    assert died
    assert saved_bytes(fit(model, selector=selector, checkpoint=folder), tmp_path / "resumed") == expected


@pytest.mark.slow
def test_what_is_stored_is_not_computed_again(model_of, tmp_path):
    model, passes = model_of("llama"), []
    handle = register_module_forward_pre_hook(lambda module, inputs: passes.append(type(module).__name__))
    try:
        counts = []
        for _ in range(2):
            passes.clear()
            fit(model, selector=Reinforce(steps=20, masks=4), checkpoint=tmp_path)
            counts.append(len(passes))
    finally:
        handle.remove()
    assert counts[1] < counts[0] / 2


@pytest.mark.slow
def test_other_fits_in_the_same_folder_are_not_mixed_up(model_of, tmp_path):
    model = model_of("llama")
    fits = [
        {},
        {"seed": 7},
        {"reward": "margin"},
        {"examples": EXAMPLES[::-1]},
        {"selector": Reinforce(steps=4, masks=4)},
    ]
    for number, options in enumerate(fits):
        plain = saved_bytes(fit(model, **options), tmp_path / f"plain {number}")
        for again in range(2):
            assert (
                saved_bytes(fit(model, **options, checkpoint=tmp_path / "kept"), tmp_path / f"{number} {again}")
                == plain
            )
    assert len(list((tmp_path / "kept").glob("rewards *.jsonl"))) == len(fits)


def test_a_checkpoint_is_found_whatever_the_metadata_of_the_examples(model_of, tmp_path):
    class Opaque:
        """As a decoded image: each has another repr."""

    for _ in range(2):
        examples = [replace(one, metadata={"image": Opaque()}) for one in EXAMPLES]
        fit(model_of("llama"), examples, checkpoint=tmp_path)
    assert len(list(tmp_path.glob("rewards *.jsonl"))) == 1
    fit(model_of("llama"), [replace(one, id=f"other {one.id}") for one in EXAMPLES], checkpoint=tmp_path)
    assert len(list(tmp_path.glob("rewards *.jsonl"))) == 2


def test_shared_means_are_of_the_chat_template_they_were_read_with(model_of):
    model = model_of("llama")
    tokenizer, own = model.tokenizer, model.tokenizer.chat_template
    turns = "{% for m in messages %}{{ m['role'] }}: {{ m['content'] }}\n{% endfor %}"
    template = "<MARK>" + turns + "{% if add_generation_prompt %}assistant: {% endif %}"
    options = {"selector": HeadSet.of(3, 4, [(0, 1)]), "question": QuestionOptions()}
    try:
        with shared_readings():
            found = []
            for mark in ("warm ", "cold . so "):
                tokenizer.chat_template = template.replace("<MARK>", mark)
                found.append(fit(model, **options).means.values)
        assert torch.equal(found[1], fit(model, **options).means.values) and not torch.equal(*found)
    finally:
        tokenizer.chat_template = own


def test_an_objective_refuses_once_the_weights_have_changed(folder_of):
    model = load_model(folder_of("llama"))
    reward = fit(model, selector=HeadSet.of(3, 4, [(0, 1)]))
    objective = reward.objective(
        [LabelledResponse("the mill", "it is warm", True), LabelledResponse("a", "cold .", False)]
    )
    mask = reward.heads.mask[None]
    objective.margins(mask)
    with torch.no_grad():
        next(iter(model.parameters())).mul_(1.5)
    with pytest.raises(WeightsChangedError, match="have changed since these prompts were read"):
        objective.margins(~mask)


def test_a_checkpoint_that_is_a_file_is_an_error_before_anything_is_read(model_of, tmp_path, monkeypatch):
    path = tmp_path / "notes.txt"
    path.write_text("mine", encoding="utf-8")
    monkeypatch.setattr("arm_lens.reward.fitting.read_means", lambda *args, **options: pytest.fail("read"))
    with pytest.raises(NotADirectoryError, match=r"a checkpoint is a folder, and .*notes\.txt is none"):
        fit(model_of("llama"), checkpoint=path)
    assert path.read_text(encoding="utf-8") == "mine"


@pytest.mark.parametrize("suffix", [".safetensors", ".jsonl"])
def test_a_changed_checkpoint_is_an_error_that_names_the_file(model_of, tmp_path, suffix):
    fit(model_of("llama"), checkpoint=tmp_path)
    path = min(tmp_path.glob(f"*{suffix}"))
    content = path.read_bytes()
    write_bytes(path, content[:-3] + bytes([content[-3] ^ 1]) + content[-2:])
    with pytest.raises(DamagedFileError, match=path.name[:10]):
        fit(model_of("llama"), checkpoint=tmp_path)


# ------------------------------------------------------------------------------------------ NaN


class NaNObjective:
    """Gives NaN from a certain call on."""

    def __init__(self, good: int) -> None:
        self.good, self.calls, self.shape = good, 0, (3, 4)

    def __len__(self) -> int:
        return 4

    def __call__(self, masks, examples=None):
        self.calls += 1
        return masks.float().mean(dim=(1, 2)) if self.calls <= self.good else torch.full((len(masks),), torch.nan)

    def gated(self, gates):
        self.calls += 1
        return gates.mean().expand(4) * (1.0 if self.calls <= self.good else torch.nan)


@pytest.mark.parametrize("good", [0, 1])
@pytest.mark.parametrize(
    "selector", [QUICK, Greedy(), TopEffect(), SoftGate(), AllHeads(), RandomHeads(like=QUICK)], ids=str
)
def test_a_search_on_nan_stops_at_once_with_an_error(selector, good):
    if isinstance(selector, AllHeads) and good:
        pytest.skip("it asks once")
    objective = NaNObjective(good)
    with pytest.raises(NotFiniteError, match=r"the search for heads stops: the reward of .* is nan"):
        selector.select(objective)
    assert objective.calls == good + 1


@pytest.mark.parametrize("denoise", [None, Denoise()])
def test_a_model_that_computes_nan_is_not_fitted_and_the_error_names_example_layer_and_cause(
    folder_of, tokenizer, denoise
):
    model = load_model(folder_of("llama"))
    (embedding,) = (one for name, one in model.named_parameters() if "embed" in name and one.shape[0] == len(tokenizer))
    with torch.no_grad():
        embedding[tokenizer.convert_tokens_to_ids("mill")] = torch.nan
    reading = ReadingOptions(readings=4, demonstrations=0, denoise=denoise)
    with pytest.raises(NotFiniteError, match=r"^mill: .* layer \d+ .*: .*check the model's weights for NaN"):
        fit(model, reading=reading, selector=HeadSet.of(3, 4, [(0, 1)]))
    with pytest.raises(NotFiniteError, match=r"^mill: "):  # while it is judged, with the means of the others
        fit(model, [one for one in EXAMPLES if one.id != "mill"], reading=reading, validation=EXAMPLES)


@pytest.mark.slow
def test_what_is_not_finite_is_not_saved_and_does_not_replace_what_is_there(model_of, tmp_path):
    reward = fit(model_of("llama"))
    before = saved_bytes(reward, tmp_path)
    scores = HeadScores("x", torch.full((3, 4), torch.nan))
    broken = replace(reward, selection=replace(reward.selection, head_scores=scores))
    with pytest.raises(NotFiniteError, match=r"scores.*cannot be saved"):
        broken.save(tmp_path)
    history = reward.selection.history.assign(reward=float("nan"))
    with pytest.raises(NotFiniteError, match="cannot be saved"):
        replace(reward, selection=replace(reward.selection, history=history)).save(tmp_path)
    with pytest.raises(NotFiniteError):
        replace(reward, means=HeadMeans(torch.full((3, 4, 12), torch.inf), 1)).save(tmp_path)
    assert saved_bytes(ActivationRewardModel.load(tmp_path, model_of("llama")), tmp_path / "again") == before


# ------------------------------------------------------------------------------------------ said aloud


@pytest.mark.slow
@pytest.mark.parametrize(
    ("options", "note"),
    [
        ({"selector": Greedy(head_penalty=1e6)}, "the search ended with no head"),
        ({"criterion": ""}, "the criterion has no name"),
        ({"examples": FEW_POSITIVE}, "the positive verdict is the right one of 1 of"),
        (
            {"examples": EXAMPLES[1::2], "selector": HeadSet.of(3, 4, [(0, 1)])},
            "the negative verdict is the right one of 0 of",
        ),
    ],
    ids=["no head", "no name", "small folds", "one kind"],
)
def test_a_doubtful_fit_warns_and_carries_its_notes(model_of, tmp_path, options, note):
    with pytest.warns(FitWarning, match=note) as caught:
        reward = fit(model_of("llama"), **options)
    assert {Path(one.filename).name for one in caught if one.category is FitWarning} == {Path(__file__).name}
    assert any(note in one for one in reward.record.notes)
    assert "note" in repr(reward) and note in reward._repr_html_()
    assert ActivationRewardModel.load(reward.save(tmp_path), model_of("llama")).record.notes == reward.record.notes


def test_heads_that_do_not_help_on_the_examples_they_were_chosen_on_are_said_not_to(model_of):
    said = set()
    for kind in ("two_way", "log_prob", "accuracy"):
        for k in (1, 6, 12):
            reward = fit(model_of("llama"), selector=TopEffect(k=k), reward=kind)
            reading = ReadingOptions(readings=4, demonstrations=1, seed=0)
            _, objective = means_and_objective(reward.judge, EXAMPLES, reading, reward=kind)
            none, chosen = objective(torch.stack([torch.zeros(3, 4, dtype=torch.bool), reward.heads.mask])).tolist()
            coin = 0.5 if kind == "accuracy" else float(np.log(0.5))
            expected = "the model without them" if chosen <= none else "flips a coin" if chosen <= coin else None
            notes = [note for note in reward.record.notes if "no better than" in note]
            assert len(notes) == (expected is not None)
            assert all(expected in note and f"{chosen:.3f}" in note for note in notes)
            said.add(expected)
    assert "the model without them" in said and len(said) > 1  # the cases are there


def test_a_fit_that_is_as_it_should_be_has_no_notes(model_of):
    with warnings.catch_warnings():
        warnings.simplefilter("error", FitWarning)
        examples = [*EXAMPLES, *(replace(one, prompt=f"the {one.id} school", id=f"{one.id} 2") for one in EXAMPLES)]
        assert fit(model_of("llama"), examples, selector=Greedy(head_penalty=0.0)).record.notes == ()


# ------------------------------------------------------------------------------------------ threads


@pytest.mark.slow
def test_reward_models_of_one_model_in_several_threads_never_mix(model_of, model_class):
    model = model_of("llama", model_class)
    sets = [HeadSet.of(3, 4, [(0, 1), (1, 2)]), HeadSet.of(3, 4, [(2, 0), (2, 3)])]
    judges = [
        *(fit(model, selector=one) for one in sets),
        GenerativeJudge(model, question=QuestionOptions(template=TEMPLATE)),
    ]
    expected = [judge.score(PROMPTS, RESPONSES) for judge in judges]
    assert not torch.equal(expected[0], expected[1])
    with ThreadPoolExecutor(3) as pool:
        found = [
            (number, pool.submit(judges[number].score, PROMPTS, RESPONSES)) for _ in range(15) for number in range(3)
        ]
    assert all(torch.equal(one.result(), expected[number]) for number, one in found)
