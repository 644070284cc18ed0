"""Every judge of a benchmark says what the library's own reward model says."""

from __future__ import annotations

import json
import shutil
from collections import Counter
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np
import pytest
import torch
from judges.chat_server import ChatServer
from judges.endpoint_support import KEY, longer, sure

import arm_lens
from arm_lens.benchmark.config import BenchmarkConfig, JudgeChoice
from arm_lens.benchmark.data import plan
from arm_lens.benchmark.items import items_of
from arm_lens.benchmark.judging import fit_accuracy, verdicts_by, verdicts_of
from arm_lens.benchmark.run import run_parts
from arm_lens.engine.reading import HeadMeans
from arm_lens.engine.sharing import shared_readings
from arm_lens.engine.steering import Injection
from arm_lens.heads import HeadSet
from arm_lens.judges.generative import GenerativeJudge, demonstrations_of
from arm_lens.judges.likelihood import LikelihoodJudge, log_likelihoods
from arm_lens.judges.options import Denoise, QuestionOptions, ReadingOptions
from arm_lens.judges.position_bias import PositionBias
from arm_lens.judges.probe import HeadProbe
from arm_lens.judges.questions import questions_of
from arm_lens.judges.sav import SparseAttentionVectors
from arm_lens.judges.template import JudgeTemplate
from arm_lens.judges.voting import VotingJudge
from arm_lens.preferences import split_preferences
from arm_lens.registry import JUDGES
from arm_lens.reward.fitting import read_means
from arm_lens.reward.model import ActivationRewardModel

pytestmark = pytest.mark.tl4

SEARCH = {"steps": 20, "head_penalty": 0.0}
OPTIONS = {
    "arm": {"selector": "top_effect"},
    "arm_reinforce": {"selector": SEARCH},
    "arm_reinforce_denoised": {"selector": {"steps": 20}},
    "arm_reinforce_add": {"selector": {"steps": 20}},
    "arm_random_heads": {"selector": {"like": SEARCH}},
    "arm_published": {"selector": {"steps": 20}},
    "arm_greedy": {"selector": {"max_heads": 2}},
    "arm_soft_gate": {"selector": {"steps": 3}},
    "arm_hard_concrete": {"selector": {"steps": 3}},
    "arm_calibrated": {"selector": {"steps": 20}},
    "rating": {
        "template": {"scalar": "Request: {prompt}\nReply: {response}", "no": ["a", "the", "is", "it"], "yes": ["and"]}
    },
    "voting_rationale": {"votes": 2, "rationale": {"max_tokens": 4}},
}
"""So that it does not take long."""
APART = ("endpoint", "likelihood_ratio", "ranked_zero_shot", "ranked_few_shot")
WORLD = {"kind": "world", "criteria": ["polite"]}


def config_of(*judges, study=WORLD, **run):
    small = {"n_examples": [4], "demonstrations": 2, "readings": 4, "test_items": 5, "batch_size": 4}
    return BenchmarkConfig.model_validate({**small, "judges": judges or ["length"], "studies": [study], **run})


@dataclass
class Setting:
    """A model, a task on it, and what the judges of the task share."""

    model: object
    config: BenchmarkConfig
    cache: Path

    def __post_init__(self):
        self.task, self.shared = plan(self.config)[-1], shared_readings()

    def ask(self, name, seed=0, **options):
        """What a judge says, and the judge."""
        choice = JudgeChoice(judge=name, **options)
        with self.shared:
            return verdicts_of(choice, self.task, self.model, self.config, seed, self.cache / "answers")


@pytest.fixture(scope="module")
def setting(judge, tmp_path_factory):
    """A small task with the bundled model; the second sample, so that nothing rests on a seed of 0."""
    return Setting(judge, config_of(samples=2), tmp_path_factory.mktemp("cache"))


@pytest.fixture(scope="module")
def said(setting):
    """said(name, seed): what a judge says, asked once."""
    known = {}

    def ask(name, seed=0):
        if (name, seed) not in known:
            known[name, seed] = setting.ask(name, seed, **OPTIONS.get(name, {}))[0]
        return known[name, seed]

    return ask


def columns(test):
    prompts, responses = zip(*test.texts, strict=True)
    return list(prompts), list(responses)


def close(one, other, atol=1e-4):
    return np.testing.assert_allclose(one, np.asarray(other, dtype=float), rtol=0, atol=atol)


# All of them


@pytest.mark.slow
@pytest.mark.any_tl
@pytest.mark.parametrize("name", [name for name in JUDGES if name not in APART])
def test_every_judge_says_something_finite_about_every_text(said, setting, name):
    verdicts = said(name)
    shape = (len(setting.task.test.texts),)
    assert verdicts.rewards.shape == verdicts.scale.shape == shape
    assert np.isfinite(verdicts.rewards).all() and np.isfinite(verdicts.scale).all()
    if verdicts.probabilities is not None:
        assert ((verdicts.probabilities >= 0) & (verdicts.probabilities <= 1)).all()
    frame = items_of(setting.task, name, 0, verdicts)
    assert Counter(frame["unit"]) == {"pair": 5, "response": 10} and JUDGES[name].summary.endswith(".")


def test_nothing_else_is_in_the_register():
    names = {"zero_shot", "few_shot", "voting", "voting_rationale", "likelihood", "sav", "probe", "length", "random"}
    heads = {"reinforce", "all_heads", "random_heads", "top_effect", "greedy", "soft_gate", "hard_concrete"}
    heads |= {"reinforce_denoised", "reinforce_add", "published"}
    names |= {"few_shot_all", "calibrated", "rating", "zero_shot_contextual", "zero_shot_batch"}
    names |= {"zero_shot_threshold", "few_shot_threshold", "arm_calibrated"}
    assert set(JUDGES) == names | {f"arm_{one}" for one in heads} | {"arm", "generative", "constant", *APART}


@pytest.mark.any_tl
@pytest.mark.slow
@pytest.mark.parametrize("name", ["voting", "arm_random_heads"])
def test_the_same_seed_says_the_same_from_new_readings(said, judge, tmp_path, name):
    again = Setting(judge, config_of(samples=2), tmp_path)
    assert np.array_equal(again.ask(name, 1, **OPTIONS.get(name, {}))[0].rewards, said(name, 1).rewards)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["zero_shot", "few_shot", "voting", "arm_reinforce", "arm_soft_gate", "sav", "probe"])
def test_what_is_shared_changes_nothing(said, setting, name):
    choice = JudgeChoice(judge=name, **OPTIONS.get(name, {}))
    alone, judge = verdicts_of(choice, setting.task, setting.model, setting.config, 0, None)
    close(said(name).scale, alone.scale)
    close(verdicts_by(judge, setting.task.test).scale, alone.scale)
    assert said(name).fit == alone.fit


@pytest.mark.slow
@pytest.mark.parametrize("name", ["arm_reinforce", "sav", "probe"])
def test_the_accuracy_on_the_examples_is_counted_by_hand(said, setting, name):
    verdicts, judge = setting.ask(name, **OPTIONS.get(name, {}))
    kind = {"kind": "two_way"} if name == "arm_reinforce" else {}
    right = [
        (float(judge.score([one.prompt], [text], **kind)[0]), label)
        for one in setting.task.examples
        for text, label in ((one.chosen, True), (one.rejected, False))
    ]
    expected = np.mean([0.5 if reward == 0.5 else (reward > 0.5) == label for reward, label in right])
    assert verdicts.fit["fit_accuracy"] == fit_accuracy(judge, setting.task.examples) == expected
    assert "fit_accuracy" not in said("few_shot").fit


# Asking


def test_zero_shot_is_the_generative_judge(said, setting, judge):
    own, test = GenerativeJudge(judge), setting.task.test
    verdicts = said("zero_shot")
    scores = own.verdicts(*columns(test))
    close(verdicts.scale, scores.gap)
    close(verdicts.rewards, scores.two_way)
    pairs = [one.example for one in test.pairs]
    margins = own.margins([one.prompt for one in pairs], [one.chosen for one in pairs], [one.rejected for one in pairs])
    frame = items_of(setting.task, "zero_shot", 0, verdicts)
    close(frame.loc[frame["unit"] == "pair", "reward"], margins)


def test_few_shot_is_the_generative_judge_with_the_same_examples(said, setting, judge):
    demonstrations = demonstrations_of(setting.task.examples, "scalar", 2, seed=setting.task.sample)
    assert Counter(one.label for one in demonstrations) == {True: 1, False: 1}
    own = GenerativeJudge(judge, examples=demonstrations, question=QuestionOptions(batch_size=3))
    close(said("few_shot").scale, own.verdicts(*columns(setting.task.test)).gap)
    assert not np.allclose(said("few_shot").scale, said("zero_shot").scale, atol=1e-2)


def test_demonstrations_are_those_of_the_task_and_of_both_kinds(setting):
    texts = {(one.prompt, text): label for one in setting.task.examples
             for text, label in ((one.chosen, True), (one.rejected, False))}  # fmt: skip
    for count in (0, 1, 2, 5, 8, 20):
        demonstrations = demonstrations_of(setting.task.examples, "scalar", count, seed=setting.task.sample)
        assert len(demonstrations) == min(count, 8)
        assert abs(sum(1 if one.label else -1 for one in demonstrations)) <= count % 2
        assert all(texts[one.prompt, one.response] == one.label for one in demonstrations)


@pytest.mark.slow
def test_voting_counts_the_votes_of_its_seed(said, setting, judge):
    few = GenerativeJudge(
        judge, examples=demonstrations_of(setting.task.examples, "scalar", 2, seed=setting.task.sample)
    )
    own = VotingJudge(few, votes=8, temperature=1.0, seed=1).score(*columns(setting.task.test))
    close(said("voting", 1).rewards, own)
    assert not np.array_equal(said("voting", 1).rewards, said("voting", 0).rewards)


def test_likelihood_is_the_mean_log_likelihood(said, setting, judge):
    close(said("likelihood").rewards, LikelihoodJudge(judge).score(*columns(setting.task.test)))


# Activation Reward Models


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "injection", "denoise"),
    [
        ("arm_reinforce", Injection(), None),
        ("arm_reinforce_add", Injection(mode="add"), None),
        ("arm_reinforce_denoised", Injection(), Denoise(explained=0.9)),
        ("arm_random_heads", Injection(), None),
        ("arm_all_heads", Injection(), None),
        ("arm_top_effect", Injection(), None),
        ("arm_greedy", Injection(), None),
    ],
)
def test_a_steered_judge_is_the_reward_model_with_its_heads(said, setting, judge, name, injection, denoise):
    verdicts = said(name, 1 if JUDGES[name].random(JUDGES[name].parse()) else 0)
    cfg = judge.cfg
    heads = HeadSet.of(cfg.n_layers, cfg.n_heads, [tuple(one) for one in verdicts.fit["heads"]])
    assert len(heads) == verdicts.fit["n_heads"]
    fitted = ActivationRewardModel.fit(
        judge,
        setting.task.examples,
        selector=heads,
        injection=injection,
        reading=ReadingOptions(readings=1),
        seed=setting.task.sample,
    )
    own = replace(fitted, means=cross_fitted(judge, setting, denoise))
    close(verdicts.scale, own.score(*columns(setting.task.test), kind="gap"))
    if len(heads):
        assert not np.allclose(verdicts.scale, said("zero_shot").scale, atol=1e-2)


def cross_fitted(judge, setting, denoise):
    """The means of two folds, each read with the demonstrations of its own, and averaged."""
    own, sample = GenerativeJudge(judge, question=QuestionOptions(batch_size=4)), setting.task.sample
    folds = split_preferences(setting.task.examples, {"fold 0": 0.5, "fold 1": 0.5}, seed=sample)
    means = [
        read_means(
            own,
            questions_of(folds[f"fold {1 - number}"], own.template, seed=sample),
            ReadingOptions(demonstrations=2, readings=2, denoise=denoise, seed=sample + number),
        )
        for number in (0, 1)
    ]  # fmt: skip
    return HeadMeans((means[0].values + means[1].values) / 2, 4)


@pytest.mark.slow
def test_the_search_finds_heads_at_all(said):
    """Else nothing is written, and the tests above would say nothing."""
    assert said("arm_reinforce", 1).fit["n_heads"] and said("arm_random_heads", 1).fit["n_heads"]


@pytest.mark.slow
def test_random_heads_are_as_many_in_every_layer_as_were_chosen(said, judge):
    def layers(verdicts):
        return Counter(layer for layer, _ in verdicts.fit["heads"])

    chosen, drawn = said("arm_reinforce", 0), [said("arm_random_heads", seed) for seed in range(4)]
    assert all(layers(one) == layers(chosen) for one in drawn)
    if any(0 < count < judge.cfg.n_heads for count in layers(chosen).values()):
        assert len({str(one.fit["heads"]) for one in drawn}) > 1


@pytest.mark.slow
def test_all_heads_are_all(said, judge):
    assert said("arm_all_heads").fit["n_heads"] == judge.cfg.n_layers * judge.cfg.n_heads


# Readouts and controls


def test_sav_is_sparse_attention_vectors(said, setting, judge):
    own = SparseAttentionVectors.fit(judge, setting.task.examples, heads=20)
    close(said("sav").rewards, own.score(*columns(setting.task.test)), atol=1e-6)
    assert said("sav").fit["heads"] == own.heads.to_list()


def test_a_probe_is_the_head_probe(said, setting, judge):
    own = HeadProbe.fit(judge, setting.task.examples)
    close(said("probe").rewards, own.score(*columns(setting.task.test)))
    assert said("probe").fit["fit_accuracy"] == 1.0


def test_controls_know_nothing(said, setting):
    test = setting.task.test
    assert said("length").rewards.tolist() == [len(response) for _, response in test.texts]
    assert set(said("constant").rewards) == {0.5}
    constant = items_of(setting.task, "constant", 0, said("constant"))
    assert set(constant["correct"]) == {0.5}
    assert not np.array_equal(said("random", 0).rewards, said("random", 1).rewards)


# Judges that see two responses, two models, or an endpoint


TEMPLATE = JudgeTemplate(
    header="", scalar="request: {prompt} reply: {response}", cue=" verdict:", yes=("yes",), no=("no",),
    ranked="request: {prompt} reply: {response_a} reply: {response_b}", first=("warm",), second=("cold",),
)  # fmt: skip


@pytest.fixture(scope="module")
def folder(folder_of, tmp_path_factory):
    """A random model that says how it is to be asked, also about two responses."""
    folder = tmp_path_factory.mktemp("ranked") / "model"
    shutil.copytree(folder_of("llama"), folder)
    (folder / "judge_template.json").write_text(json.dumps(asdict(TEMPLATE)), encoding="utf-8")
    return folder


@pytest.fixture(scope="module")
def ranked(folder):
    """A small task on it."""
    return Setting(arm_lens.load_model(folder), config_of(batch_size=3), folder)


@pytest.mark.parametrize("name", ["ranked_zero_shot", "ranked_few_shot"])
def test_ranked_judges_ask_in_both_orders(ranked, name):
    demonstrations = 1 if name == "ranked_few_shot" else 0
    verdicts, _ = ranked.ask(name, **({"demonstrations": demonstrations} if demonstrations else {}))
    pairs = [one.example for one in ranked.task.test.pairs]
    three = [one.prompt for one in pairs], [one.chosen for one in pairs], [one.rejected for one in pairs]
    own = GenerativeJudge(
        ranked.model,
        examples=ranked.task.examples[:demonstrations],
        question=QuestionOptions(layout="ranked", template=TEMPLATE),
    )
    close(verdicts.margins, own.margins(*three))
    bias = PositionBias.of(own.orders(*three))
    assert verdicts.fit["position_bias"] == pytest.approx(2 * bias.first - 1)
    assert verdicts.fit["inconsistent"] == pytest.approx(bias.inconsistent)
    assert set(items_of(ranked.task, name, 0, verdicts)["unit"]) == {"pair"}


@pytest.mark.slow
def test_a_likelihood_ratio_is_taken_to_the_reference_in_a_folder(ranked, folder, folder_of, model_of):
    verdicts, _ = ranked.ask("likelihood_ratio", reference=str(folder_of("qwen2")), beta=0.5)
    texts = columns(ranked.task.test)
    tokenizer = ranked.model.tokenizer
    questions = []  # both models read the same tokens
    for prompt, response in zip(*texts, strict=True):
        before = [tokenizer.bos_token_id, *tokenizer.encode(f"request: {prompt} reply:", add_special_tokens=False)]
        questions.append((before, tokenizer.encode(response, add_special_tokens=False)))
    sums = [log_likelihoods(model, questions) for model in (ranked.model, model_of("qwen2"))]
    close(verdicts.rewards, 0.5 * (sums[0] - sums[1]), atol=1e-3)
    assert verdicts.threshold is None
    itself, _ = ranked.ask("likelihood_ratio", reference=str(folder))
    close(itself.rewards, torch.zeros(len(texts[0])))


@pytest.fixture
def key(monkeypatch):
    pytest.importorskip("openai", reason="the openai client is optional")
    monkeypatch.setenv("OPENAI_API_KEY", KEY)


@pytest.mark.any_tl
@pytest.mark.slow
def test_an_endpoint_is_asked_once_and_its_answers_are_kept(key, tmp_path):
    with ChatServer(sure) as server:
        options = {"model": "judge", "base_url": server.url, "max_retries": 0, "timeout": 10.0}
        config = config_of({"judge": "endpoint", **options}, test_items=3)
        first = run_parts(config, tmp_path, progress=False).items
        assert len(server.received) == 6 and (tmp_path / "answers").exists()
        for part in (tmp_path / "parts").glob("*.parquet"):
            part.unlink()
        second = run_parts(config, tmp_path, progress=False).items
        assert len(server.received) == 6
    assert first.equals(second) and set(first["n_examples"]) == {0}
    assert first["probability"].notna().all()


def test_an_endpoint_that_only_writes_words_states_no_probability(key, setting, tmp_path):
    with ChatServer(longer) as server:
        ask = {"model": "judge", "base_url": server.url, "max_retries": 0}
        there = Setting(setting.model, setting.config, tmp_path)
        scalar, ranked = (there.ask("endpoint", layout=one, **ask)[0] for one in ("scalar", "ranked"))
    frame = items_of(setting.task, "endpoint", 0, scalar)
    assert frame["probability"].isna().all() and scalar.fit == {"unparsed": 0, "cost": None, "score_kind": None}
    pairs = items_of(setting.task, "endpoint", 0, ranked)
    longest = [len(one.example.chosen) > len(one.example.rejected) for one in setting.task.test.pairs]
    assert (pairs["correct"] == 1).tolist() == longest and pairs["probability"].isna().all()
