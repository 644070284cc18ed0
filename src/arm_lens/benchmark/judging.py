"""Fitting a judge to a task's examples, from its spec alone, and having it judge the task's test.

What the judges of a task share is read once (`arm_lens.engine.sharing`): the test's prompts for all judges with the same
questions, the means for all selectors, a search for all random sets that are like its own. What belongs to the test outlives
a task; what belongs to its examples does not. Nothing depends on which judge comes first, so a run that was stopped and
continues gives the same numbers.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float
from scipy.special import expit

from arm_lens.benchmark.config import BenchmarkConfig, BenchmarkConfigError, JudgeChoice, check_score_kind
from arm_lens.benchmark.data import Task, TestSet
from arm_lens.engine.images import NoImagesError
from arm_lens.engine.language_model import ModelLike, language_model
from arm_lens.engine.loading import load_model
from arm_lens.engine.protocol import LanguageModel
from arm_lens.engine.sharing import SharedReadings, remembered, shared_readings, sharing
from arm_lens.judges.base import FitContext, FittedJudge, Judge, ScoreKind, VerdictJudge
from arm_lens.judges.checks import Texts
from arm_lens.judges.options import QuestionOptions, ReadingOptions
from arm_lens.judges.position_bias import PositionBias
from arm_lens.judges.verdict_mass import VerdictMass, said_once
from arm_lens.preferences import OverlapError, Preference, PreferencePair, Prompt, find_overlap, text_of, unpair
from arm_lens.preferences.images import marks_in


@dataclass(frozen=True, eq=False)
class Verdicts:
    """What a judge says about a test."""

    rewards: Float[np.ndarray, " text"] | None
    """The reward of each text of the test; None for a judge that only compares."""
    scale: Float[np.ndarray, " text"] | None
    """What pairs are compared by: the rewards themselves, or on a scale that does not saturate (`graded`)."""
    probabilities: Float[np.ndarray, " text"] | None = None
    """P(meets the criterion), if the judge gives one."""
    threshold: float | None = 0.5
    """The reward above which a response meets the criterion; None if no reward means that: see `arm_lens.benchmark.items`."""
    margins: Float[np.ndarray, " pair"] | None = None
    """The margin of each pair, from a judge that sees both responses at once."""
    log_odds: bool = False
    """Whether scale and margins are log-odds, so that a pair's margin is a probability too."""
    fit: dict[str, Any] = field(default_factory=dict)
    """What is known of the fit: fit_accuracy, n_heads, heads, position_bias, inconsistent, unparsed, cost; and of the
    questions: verdict_mass and preferred (`asked`). Also score_kind."""


def model_of(config: BenchmarkConfig) -> LanguageModel:
    """The model that a run names."""
    loaded = load_model(config.model, model_class=config.model_class, device=config.device, dtype=config.dtype)
    return language_model(loaded)


def check_judges(config: BenchmarkConfig) -> None:
    """Raise a BenchmarkConfigError that names the judge, if a judge or one of its options is unknown or cannot work here.

    Nor can the lead judge's reward models be saved if it is not fitted.
    """
    for choice in [*config.choices, *(one for study in config.studies for one in config.judges_of(study))]:
        try:
            parsed = choice.parsed
            choice.check_score_kind()
            if choice.spec.check is not None:
                choice.spec.check(parsed)
        except ValueError as error:
            raise BenchmarkConfigError(str(error)) from error
        if config.keep_reward_models and choice.label == config.lead and not issubclass(choice.spec.judge, FittedJudge):
            raise BenchmarkConfigError(
                f"keep_reward_models saves what the lead judge fits, but {config.lead!r} is not fitted; name another lead"
            )


def check_tasks(tasks: Iterable[Task]) -> None:
    """Check that every judge suits its data, and that no example is tested.

    Raises:
        BenchmarkConfigError: naming judge and study, if a ranked judge meets single responses.
        OverlapError: naming task and items.
    """
    for task in tasks:
        for choice in task.judges:
            check_data(choice, task)
        if found := find_overlap(task.examples, [item.example for item in task.test.items]):
            raise OverlapError(f"{task.title}: {found}")


def check_images(config: BenchmarkConfig, tasks: Iterable[Task], model: LanguageModel) -> None:
    """Raise a BenchmarkConfigError that names judge, study and item, if there is an image that a judge cannot read.

    Each judge is tried on the first preference with an image of each study; nothing is fitted for it.
    """
    known = set[tuple[str, str]]()
    for task in tasks:
        pool = (*(item.example for item in task.test.items), *task.examples)
        seen = next(filter(_has_image, pool), None)
        for choice in task.judges if seen else ():
            if choice.spec.prompt is None or (task.study, choice.label) in known:
                continue
            known.add((task.study, choice.label))
            given = task if choice.spec.reads_examples(choice.parsed) else task.without_examples()
            try:
                choice.spec.prompt(context_of(choice, given, model, config), choice.parsed, seen)
            except NoImagesError as error:
                raise BenchmarkConfigError(f"{choice.label} on {task.study}: {error}") from error
            except ValueError:
                continue  # what else is wrong with a prompt is found and recorded when its part is run


def _has_image(example: Preference) -> bool:
    return any(marks_in(text_of(text)) for one in unpair([example]) for text in (one.prompt, one.response))


def check_data(choice: JudgeChoice, task: Task) -> None:
    """Raise a BenchmarkConfigError that names judge and study, if a ranked judge meets single responses."""
    if choice.ranked and not (task.test.pairs and all(isinstance(one, PreferencePair) for one in task.examples)):
        raise BenchmarkConfigError(
            f"the judge {choice.judge!r} compares two responses, but {task.study!r} has single ones; leave it out there"
        )


@said_once()
def verdicts_of(
    choice: JudgeChoice, task: Task, model: ModelLike, config: BenchmarkConfig, seed: int, cache: Path | None
) -> tuple[Verdicts, Judge]:
    """Fit a judge to a task's examples, and have it judge the task's test; raise a ValueError if it cannot.

    Within `shared_readings` the next judge finds whatever was read for one. The configuration sets demonstrations, readings
    and batch size unless the judge's options do; ``seed`` is that of everything random except the example sample, and
    ``cache`` the folder in which answers of endpoints are stored.
    """
    spec, options = choice.spec, choice.parsed
    with _readings_of(task) as (of_examples, of_test):
        with of_test, of_examples:
            judge: Judge = spec.fit(context_of(choice, task, model, config, seed, cache), options)
            fit = {"fit_accuracy": fit_accuracy(judge, task.examples, choice.score_kind)} if spec.checks_fit else {}
        with of_test:
            verdicts = verdicts_by(judge, task.test, choice.score_kind)
    verdicts.fit.update(fit)
    return verdicts, judge


def context_of(
    choice: JudgeChoice, task: Task, model: ModelLike, config: BenchmarkConfig, seed: int = 0, cache: Path | None = None
) -> FitContext:
    """What a judge is fitted with on a task; see `verdicts_of`."""
    context = FitContext(
        model=model,
        examples=task.examples,
        question=QuestionOptions(criterion_text=task.criterion_text, batch_size=config.batch_size),
        reading=ReadingOptions(demonstrations=config.demonstrations, readings=config.readings, seed=task.sample),
        seed=seed,
        like_seed=task.first_seed,
        cache=cache,
        workers=config.n_workers,
    )
    return context.with_options(choice.parsed)


@said_once()
def verdicts_by(judge: Judge, test: TestSet, kind: ScoreKind | None = None) -> Verdicts:
    """What a judge says about a test, by scores of a kind (`graded`).

    Raises:
        ValueError: if the judge does not give scores of that kind, or if it only compares and there are no pairs.
    """
    check_score_kind(judge.kind, type(judge), kind, ranked=judge.compares_only)
    before = _mass_of(judge)
    verdicts = _verdicts_by(judge, test, kind)
    verdicts.fit.update(asked(before, _mass_of(judge)), score_kind=kind)
    return verdicts


def asked(before: VerdictMass | None, after: VerdictMass | None) -> dict[str, Any]:
    """The probability of all verdicts together, and what the model would rather write, over the questions in between.

    Returns:
        ``verdict_mass``, P(positive) + P(negative) on average, and ``preferred``, tokens with their mean probabilities, empty
        if the verdicts are likely enough; nothing if no model was asked for verdicts.
    """
    if before is None or after is None or after.n == before.n:
        return {}
    rather = ", ".join(f"{token!r} ({share:.0%})" for token, share in after.preferred)
    return {"verdict_mass": (after.total - before.total) / (after.n - before.n), "preferred": rather}


def _mass_of(judge: Judge) -> VerdictMass | None:
    """A copy of the verdict mass so far of a judge that asks a language model, itself or through another judge."""
    for one in (judge, getattr(judge, "judge", None)):
        if isinstance(one, VerdictJudge) and isinstance(getattr(one, "model", None), LanguageModel):
            return replace(one.verdict_mass)
    return None


def _verdicts_by(judge: Judge, test: TestSet, kind: ScoreKind | None) -> Verdicts:
    if judge.compares_only:
        return _comparisons(judge, test)
    prompts, responses = (list(column) for column in zip(*test.texts, strict=True))
    return replace(graded(judge, prompts, responses, kind), fit=judge.facts())


def graded(judge: Judge, prompts: Texts, responses: Texts, kind: ScoreKind | None) -> Verdicts:
    """A judge's scores of responses of a kind, with all that goes with the kind.

    ============================ ======================= ==================== ==================== =====================
    kind                         single responses        threshold            pairs are compared   probabilities
    ============================ ======================= ==================== ==================== =====================
    None                         reward; if gaps are     the judge's          by gaps              the rewards; of a pair,
                                 log-odds, two-way                                                 the margin's
    ``gap``                      gap                     0, if log-odds       by gaps              likewise
    ``two_way``, ``probability`` the kind itself         the judge's          by these scores      the scores; of a pair,
    ``reward``                                                                                     none
    ============================ ======================= ==================== ==================== =====================

    A judge that states no probabilities has none by any kind.
    """
    if kind in ("reward", "probability"):
        rewards = gaps = judge.score(prompts, responses, kind=kind).double().numpy()
    else:
        rewards, gaps = (one.double().numpy() for one in judge.rewards_and_gaps(prompts, responses))
        if judge.log_odds:  # from the gaps, which are still apart where rewards in float32 are all 1
            rewards = expit(gaps)
    by_gaps = kind in (None, "gap")
    return Verdicts(
        gaps if kind == "gap" else rewards,
        gaps if by_gaps else rewards,
        probabilities=rewards if judge.states_probability else None,
        threshold=0.0 if kind == "gap" and judge.log_odds else judge.threshold,
        log_odds=by_gaps and judge.log_odds,
    )


def _comparisons(judge: Judge, test: TestSet) -> Verdicts:
    columns = pair_texts([item.example for item in test.pairs])
    if not test.pairs:
        raise ValueError("a ranked judge needs pairs to judge, and there are only single responses")
    if not isinstance(judge, VerdictJudge):
        return Verdicts(None, None, margins=judge.margins(*columns).double().numpy(), fit=judge.facts())
    orders = judge.orders(*columns)
    bias = PositionBias.of(orders)
    margins = ((orders[:, 0] - orders[:, 1]) / 2).double().numpy()
    about = {"position_bias": 2 * bias.first - 1, "inconsistent": bias.inconsistent}
    return Verdicts(None, None, margins=margins, log_odds=judge.log_odds, fit={**about, **judge.facts()})


def pair_texts(examples: Sequence[Preference]) -> tuple[list[Prompt], list[Prompt], list[Prompt]]:
    """The prompts of the pairs among examples, their chosen and their rejected responses."""
    pairs = [one for one in examples if isinstance(one, PreferencePair)]
    return [one.prompt for one in pairs], [one.chosen for one in pairs], [one.rejected for one in pairs]


@said_once()
def fit_accuracy(judge: Judge, examples: Sequence[Preference], kind: ScoreKind | None = None) -> float:
    """The accuracy on the examples that a judge was fitted to, by scores of a kind (`graded`); a tie counts one half."""
    if judge.compares_only:
        above = judge.margins(*pair_texts(examples)).double().numpy()
        labels = np.ones(len(above), dtype=bool)
    else:
        singles = unpair(examples)
        found = graded(judge, [one.prompt for one in singles], [one.response for one in singles], kind)
        assert found.rewards is not None
        above = found.rewards - (np.median(found.rewards) if found.threshold is None else found.threshold)
        labels = np.array([one.label for one in singles])
    return float(np.where(above == 0, 0.5, (above > 0) == labels).mean())


@dataclass
class _Held:
    """The readings of the current task and of its test, and what they are readings of."""

    keys: tuple[str, ...] = ()
    of_examples: SharedReadings = field(default_factory=shared_readings)
    of_test: SharedReadings = field(default_factory=shared_readings)


@contextlib.contextmanager
def _readings_of(task: Task) -> Iterator[tuple[SharedReadings, SharedReadings]]:
    """The contexts of a task's examples and of its test, which outside `shared_readings` belong to one judge."""
    with contextlib.nullcontext() if sharing() else shared_readings():
        held: _Held = remembered("readings of a task", _Held)
        test = (task.test.texts_digest, task.criterion_text)
        if held.keys[1:] != test:
            held.of_test = shared_readings()
        if held.keys != (task.digest, *test):
            held.of_examples = shared_readings()
        held.keys = (task.digest, *test)
        yield held.of_examples, held.of_test
