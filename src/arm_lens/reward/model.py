r"""Activation Reward Models: a reward function from a few labelled preferences, without training.

For a criterion :math:`j` (arXiv 2507.01368): read the mean activation :math:`\mu_j` of every head at the last token of
prompts that end in a question about an example; choose heads :math:`\lambda_j` by REINFORCE on further examples; then,
while the model is asked whether a response meets the criterion, write :math:`\mu_j` at the last token of the heads in
:math:`\lambda_j`, and take

.. math:: s(r \mid p) = P(\text{"Yes"} \mid p, r;\; z[l, m] \leftarrow \mu_j[l, m],\; (l, m) \in \lambda_j).

Where the paper is silent, the choices here are: each prompt that is read has ``demonstrations`` random demonstrations of its
own, and the steered prompt has none; and no example takes part in choosing heads with a mean that it was read for
(`arm_lens.reward.fitting`).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, ClassVar, Literal

import pandas as pd
import torch
from jaxtyping import Float
from torch import Tensor

from arm_lens.display import Figure, card, code_line, counted, first_and_last, listed, score_map, set_map, size
from arm_lens.display.caution import caution
from arm_lens.engine.language_model import ModelLike
from arm_lens.engine.model_info import ModelInfo
from arm_lens.engine.reading import HeadMeans
from arm_lens.engine.sharing import sharing
from arm_lens.engine.steering import Injection, steer
from arm_lens.engine.verdict_tokens import VerdictScores
from arm_lens.heads import PROBABILITIES, HeadScores, HeadSet
from arm_lens.judges.artefact import check_tensors
from arm_lens.judges.base import VerdictJudge
from arm_lens.judges.calibrated import CalibratedJudge
from arm_lens.judges.fingerprint import fingerprint_of
from arm_lens.judges.generative import AskingJudge, GenerativeJudge
from arm_lens.judges.options import QuestionOptions, ReadingOptions, TooLong, seeds_of
from arm_lens.judges.questions import Question, clusters_behind, listed_names, questions_of
from arm_lens.preferences import Preference
from arm_lens.preferences.overlap import OverlapWarning, data_digest, find_overlap, known_among, text_digests
from arm_lens.preferences.types import responses_of
from arm_lens.reward.algebra import Weighable, check_same_model, means_of_both
from arm_lens.reward.checkpoint import FitCheckpoint
from arm_lens.reward.fitting import judging_objective, means_and_objective, read_means
from arm_lens.reward.records import FitRecord, RewardRecord
from arm_lens.selection import (
    COIN,
    JudgingObjective,
    Objective,
    Reinforce,
    RewardKind,
    Search,
    Selection,
    Selector,
    selector_of,
)

NO_NAME = "the criterion has no name, by which reward models are told apart in tables and logs; pass criterion=..."
NO_HEAD = (
    "the search ended with no head, so that the reward model judges as the model does without it: no set of heads was worth "
    "its head penalty on these examples; give more examples, or a smaller head_penalty"
)


class FitWarning(UserWarning):
    """A reward model was fitted, but it is probably not what was meant."""


@dataclass(frozen=True, eq=False)
class ActivationRewardModel(Weighable, VerdictJudge, AskingJudge):
    """A fitted reward model: heads, what to write at them, and the question that the steered model is asked."""

    kind: ClassVar[str] = "reward model"
    heads: HeadSet
    means: HeadMeans
    injection: Injection
    selection: Selection | None
    """How the heads were found; None if they were given."""
    record: FitRecord

    @classmethod
    def fit(
        cls,
        model: ModelLike,
        examples: Sequence[Preference],
        *,
        validation: Sequence[Preference] | None = None,
        criterion: str = "",
        question: QuestionOptions | str | None = None,
        reading: ReadingOptions | None = None,
        selector: Selector | HeadSet | Mapping[str, Any] | str | None = None,
        reward: RewardKind = "two_way",
        injection: Injection | None = None,
        seed: int | None = None,
        checkpoint: str | Path | None = None,
        progress: bool = False,
    ) -> ActivationRewardModel:
        """Fit a reward model to labelled preferences; otherwise as `FittedJudge.fit`.

        Args:
            model: any that `arm_lens.engine.language_model` accepts; it is not changed.
            examples: pairs or labelled responses; at least two questions of each kind if ``validation`` is not given.
            validation: what heads are chosen on; by default the examples themselves, cross-fitted in folds (see
                `arm_lens.reward.fitting`).
            criterion: its name, for the record; by default the examples' own.
            question: how the question is put; a bare string is the criterion in words, by default left to the examples alone.
            reading: how the means are read: demonstrations, readings, folds, denoising, seed.
            selector: how heads are chosen, in any form that `arm_lens.selection.selector_of` accepts: a `Reinforce`, its
                name, its options. Or a ready set of heads: then all examples are read for the means, and none are left for
                a search.
            reward: what the search maximises.
            injection: replace (default) or add, and how strongly.
            seed: of the search, and of the reading if that has none of its own; the same seeds give the same model.
            checkpoint: a folder in which means and rewards are stored as soon as they are known. After Ctrl-C, a crash or a
                kill the same call goes on from there, with the same result to the last byte; delete the folder when done.
            progress: show progress bars.

        Warns:
            FitWarning: if the reward model is valid but probably not what was meant; its record has the same `notes`.

        Raises:
            ValueError: if there are too few examples, or they name several criteria; or if there is a checkpoint folder, but
                hooks are on the model.
            NotFiniteError: naming prompt and layer, if the model computes numbers that are not finite.
            StoreBusyError: if another process fits the same in the checkpoint folder.
            NotADirectoryError: if the checkpoint is no folder.
        """
        criterion = criterion or _criterion_of([*examples, *(validation or ())])
        judge, injection = GenerativeJudge(model, question=question), injection or Injection()
        reading = reading or ReadingOptions()
        read_seed, search_seed = seeds_of(reading, seed)
        reading = reading.model_copy(update={"seed": read_seed})
        pool = questions_of(examples, judge.template, judge.layout, seed=read_seed)
        n_smallest, n_validation, selection, search = len(pool), 0, None, None
        notes = [] if criterion else [NO_NAME]
        if isinstance(selector, HeadSet):
            _check_size(selector, judge.model.info)
        if overlap := find_overlap(examples, validation or ()):
            notes.append(f"heads are chosen on examples that are also read: {overlap.named('validation examples')}")
        chooser = selector if isinstance(selector, HeadSet) else selector_of(selector or Reinforce())
        if isinstance(chooser, Selector):
            chooser = chooser.resolved((judge.model.n_layers, judge.model.n_heads))  # what is recorded are numbers
        if checkpoint is not None and judge.model.has_foreign_hooks():
            raise ValueError(
                "hooks are on the model, which a checkpoint cannot tell from others: remove them, or fit without a checkpoint"
            )
        kept = FitCheckpoint(checkpoint, {} if checkpoint is None else {
            "model": fingerprint_of(judge.model, judge.question).digest,
            "question": judge.question.model_dump(mode="json"),
            "examples": [_identity(examples), _identity(validation or ())],
            "reading": reading.model_dump(mode="json"),
            "selector": chooser.to_list() if isinstance(chooser, HeadSet) else chooser.model_dump(mode="json"),
            "reward": reward,
            "injection": injection.to_dict(),
            "seed": search_seed,
        })  # fmt: skip
        with kept.noting():
            if isinstance(chooser, HeadSet):
                means, heads = kept.means(0, lambda: read_means(judge, pool, reading, progress=progress)), chooser
                notes += _notes_on_kinds("the examples", [one.positive for one in pool], least=1)
            else:
                means, objective = means_and_objective(
                    judge, examples, reading, validation=validation, injection=injection, reward=reward,
                    checkpoint=kept, progress=progress,
                )  # fmt: skip
                n_validation = len(objective)
                if validation is None:
                    n_smallest -= max(map(len, objective.objectives))
                for number, fold in enumerate(objective.objectives):
                    what = f"fold {number}" if validation is None else "the validation examples"
                    notes += _notes_on_kinds(what, fold.labels.tolist(), least=2)
                with kept.rewards(objective) as stored:
                    selection = chooser.select(stored, seed=search_seed, progress=progress)
                    if isinstance(chooser, Search):
                        notes += _notes_on_search(selection, stored, reward)
                heads, search = selection.heads, chooser.model_dump(mode="json")
        record = FitRecord(
            criterion=criterion,
            seed=read_seed,
            search_seed=None if selection is None else search_seed,
            demonstrations=min(reading.demonstrations, n_smallest - 1),
            readings=reading.readings,
            n_read=len(pool),
            n_validation=n_validation,
            folds=reading.folds if selection is not None and validation is None else None,
            reward=reward,
            search=search,
            denoise=None if reading.denoise is None else reading.denoise.model_dump(),
            notes=tuple(notes),
            fitted_on=text_digests([*examples, *(validation or ())]),
            data=data_digest([*examples, *(validation or ())]),
        )
        for note in notes:
            caution(note, FitWarning)
        return cls(judge, heads, means, injection, selection, record)

    @property
    def __name__(self) -> str:
        """TRL logs rewards under a function's name."""
        return self.record.criterion or "activation_reward_model"

    @property
    def question(self) -> QuestionOptions:
        """How the question is put, its template included."""
        return self.judge.question

    @property
    def chosen(self) -> HeadSet | Float[Tensor, "layer head"]:
        """What the model is steered by: the heads, or the gates of a search that ended in gates."""
        return self.heads if self.selection is None else self.selection.chosen

    def asking(self, *, on_too_long: TooLong | None = None, batch_size: int | None = None) -> ActivationRewardModel:
        """The same reward model with other options that change no question: what is too long, prompts per pass."""
        return replace(self, judge=self.judge.asking(on_too_long=on_too_long, batch_size=batch_size))

    def check_heads(self, name: str = "") -> None:
        """Raise a ValueError that names the reward model if it moves heads by soft gates: they are not a set of heads."""
        if not isinstance(self.chosen, HeadSet):
            raise ValueError(
                f"{repr(name) if name else 'the reward model'} moves all heads by soft gates and has no set of heads; fit it "
                "with SoftGate(discrete=True), or take reward.with_heads(reward.heads)"
            )

    @property
    def info(self) -> ModelInfo:
        """The model it was fitted on."""
        return self.model.info

    def with_heads(self, heads: HeadSet) -> ActivationRewardModel:
        """The same reward model with other heads: all of them, random ones, those of another criterion.

        Raises:
            TypeError: if ``heads`` is not a `HeadSet`.
            ValueError: if it is a set of heads of a model of another size.
        """
        _check_size(heads, self.info)
        return ActivationRewardModel(self.judge, heads, self.means, self.injection, None, self.record)

    def with_injection(
        self, *, strength: float | None = None, mode: Literal["replace", "add"] | None = None
    ) -> ActivationRewardModel:
        """The same reward model whose means are written with another strength or in another mode, without a refit."""
        changes: dict[str, Any] = {"strength": strength, "mode": mode}
        given = {name: value for name, value in changes.items() if value is not None}
        return replace(self, injection=replace(self.injection, **given))

    def with_threshold(self, probability: float) -> CalibratedJudge:
        """A judge for which a response meets the criterion if this one's ``two_way`` score is above another number than 1/2.

        Its log-odds are less by those of the number, so that scores and thresholds of all kinds fit together; which of
        two responses is better does not change.

        Raises:
            ValueError: if it is not a probability between 0 and 1, or the layout is ranked.
        """
        if not 0 < probability < 1:
            raise ValueError(f"a threshold is a probability between 0 and 1, not {probability}")
        return CalibratedJudge(self, "threshold", math.log(probability / (1 - probability)))

    def __or__(self, other: ActivationRewardModel) -> ActivationRewardModel:
        """The heads of either, each written with its own mean, and with the average of both where both have it."""
        return self._with_means_of(other, "|", HeadSet.__or__)

    def __and__(self, other: ActivationRewardModel) -> ActivationRewardModel:
        """The heads of both, written with the average of both means."""
        return self._with_means_of(other, "&", HeadSet.__and__)

    def _with_means_of(
        self, other: ActivationRewardModel, sign: str, heads: Callable[[HeadSet, HeadSet], HeadSet]
    ) -> ActivationRewardModel:
        """A reward model with heads and means of both, and the question of this one; see `arm_lens.reward.algebra`."""
        if not isinstance(other, ActivationRewardModel):
            return NotImplemented
        check_same_model(self, other)
        names = [one.record.criterion or "unnamed" for one in (self, other)]
        for one, name in zip((self, other), names, strict=True):
            one.check_heads(name)
        if self.injection != other.injection or self.layout != other.layout:
            raise ValueError(
                f"{names[0]!r} and {names[1]!r} are written or put differently ({self.injection}, {self.layout}; "
                f"{other.injection}, {other.layout}): use with_injection(...), and fit both in one layout"
            )
        record = replace(
            self.record,
            criterion=f"{names[0]} {sign} {names[1]}",
            search=None,
            search_seed=None,
            folds=None,
            notes=(
                *self.record.notes,
                *other.record.notes,
                f"made of {names[0]} and {names[1]}, with the question of the first",
            ),
            fitted_on=tuple(sorted({*self.record.fitted_on, *other.record.fitted_on})),
            data="",
        )
        means = means_of_both(self.means, self.heads, other.means, other.heads)
        return ActivationRewardModel(self.judge, heads(self.heads, other.heads), means, self.injection, None, record)

    def fitted_among(self, examples: Sequence[Preference]) -> tuple[str, ...]:
        """The ids of the examples with a text that it was fitted on, or that heads were chosen on."""
        return known_among(examples, self.record.fitted_on)

    def objective(self, examples: Sequence[Preference], *, progress: bool = False) -> JudgingObjective:
        """Labelled examples, in questions without demonstrations, as an objective for head masks that writes these means.

        `arm_lens.attribution` takes such objectives. Give examples that the reward model was not fitted on: on its own,
        heads look better than they are. Responses to the same prompt form a cluster; if there are no prompts, or one for
        all, each response is one.

        Warns:
            OverlapWarning: naming the examples that the reward model was fitted on.

        Raises:
            ValueError: if there is no example, or all have the same right verdict.
        """
        if known := self.fitted_among(examples):
            caution(
                f"the reward model was fitted on {len(known)} of these {len(examples)} examples, on which its heads look "
                f"better than they are: {listed_names(known)}",
                OverlapWarning,
            )
        questions = questions_of(examples, self.template, self.layout, seed=self.record.seed)
        return judging_objective(
            self.judge,
            questions,
            self.means,
            injection=self.injection,
            reward="probability",
            clusters=clusters_behind(examples, self.layout),
            criterion=self.record.criterion,
            progress=progress,
        )

    def verdict(self, questions: Sequence[Question], *, progress: bool = False) -> VerdictScores:
        """The steered model's verdict on each question.

        Within `arm_lens.engine.sharing.shared_readings` all tokens except the last are read once for all judges that ask
        the same, steered or not. In half precision the verdicts' logits are computed in float32, as by the judge that is not
        steered.
        """
        coarse = self.model.dtype.itemsize < 4 and self.model.no_extension(self.model.n_ctx) is None
        if (sharing() or coarse) and questions and not self.model.is_hooked():
            chosen = self.chosen.mask if isinstance(self.chosen, HeadSet) else self.chosen
            return self.judge.steered_verdict(
                questions, chosen, self.means.values, injection=self.injection, progress=progress
            )
        with steer(self.model, self.chosen, self.means.values, injection=self.injection):
            return self.judge.verdict(questions, progress=progress)

    def too_long_questions(self, questions: Sequence[Question]) -> dict[int, str]:
        """The questions, by number, that exceed the model's context, each with the error; none if they are clipped."""
        return self.judge.too_long_questions(questions)

    def facts(self) -> dict[str, Any]:
        """How many heads the means are written at, and which."""
        return {"n_heads": len(self.heads), "heads": self.heads.to_list()}

    def _artefact(self) -> tuple[ModelLike, dict[str, Tensor], dict[str, Any]]:
        tensors: dict[str, Tensor] = {"means": self.means.values}
        record = {
            "heads": self.heads.to_list(),
            "means_count": self.means.count,
            "injection": self.injection.to_dict(),
            **self.judge.record(),
            "fit": asdict(self.record),
            "search": None,
        }
        if self.selection is not None:
            found = {"scores": self.selection.head_scores.values, "trajectory": self.selection.trajectory}
            found["gates"] = self.selection.gates
            tensors |= {name: tensor for name, tensor in found.items() if tensor is not None}
            history = self.selection.history.to_dict(orient="list")
            passes = self.selection.passes
            record["search"] = {"scores": self.selection.head_scores.name, "passes": passes, "history": history}
        return self.model, tensors, record

    @classmethod
    def _from_artefact(
        cls, model: ModelLike, tensors: dict[str, Tensor], record: dict[str, Any]
    ) -> ActivationRewardModel:
        found = RewardRecord.parse(record)
        judge = GenerativeJudge.of_record(model, found)
        shape = (judge.model.n_layers, judge.model.n_heads)
        searched = {} if found.search is None else {"scores": shape}
        optional = {} if found.search is None else {"trajectory": (None, *shape), "gates": shape}
        check_tensors(tensors, {"means": (*shape, judge.model.d_head), **searched}, optional=optional)
        heads, selection = HeadSet.of(*shape, found.heads), None
        if found.search is not None:
            scores, history = HeadScores(found.search.scores, tensors["scores"]), pd.DataFrame(found.search.history)
            trajectory, gates, passes = tensors.get("trajectory"), tensors.get("gates"), found.search.passes
            selection = Selection(heads, scores, history, trajectory, gates, passes)
        means = HeadMeans(tensors["means"], found.means_count)
        return cls(judge, heads, means, found.injection, selection, found.fit)

    def plot(self) -> Figure:
        """The map of heads: `arm_lens.plots.selection_probabilities`, or `selected_heads` without a search that had some."""
        from arm_lens.plots.head_maps import chosen_heads  # plotly is optional

        return chosen_heads(self)

    def __repr__(self) -> str:
        name = self.record.criterion or "unnamed criterion"
        heads = f"{counted(len(self.heads), 'head')} {listed(self.heads)}"
        notes = f", {counted(len(self.record.notes), 'note')}" if self.record.notes else ""
        return f"ActivationRewardModel({name!r}, {heads}, on {self.info.name}{notes})"

    def _repr_html_(self) -> str:
        record, found = self.record, self.selection
        searched = " (of the search, not an effect)" * (found is not None and found.head_scores.name in PROBABILITIES)
        facts = {
            "criterion": record.criterion or "unnamed",
            "criterion_text": self.judge.criterion_text or None,
            "model": self.info.name,
            "layout": self.judge.layout,
            "read": f"{record.readings} prompts made of {record.n_read} questions",
            "chosen on": found and f"{record.n_validation} questions",
            "heads": f"{len(self.heads)} of {self.heads.mask.numel()} {listed(self.heads)}",
            "shade": found and found.head_scores.name + searched,
            "reward": found and f"{first_and_last(found.history, 'reward')} ({record.reward})",
            "notes": "; ".join(record.notes) or None,
        }
        chosen = self.heads.mask
        grid = score_map(found.head_scores.values, chosen=chosen) if found else set_map(chosen)
        return card("Activation Reward Model", facts, grid, code_line("reward.score(prompts, responses)"))


def _check_size(heads: HeadSet, info: ModelInfo) -> None:
    """Raise an error if this is not a set of heads of a model of this size."""
    if not isinstance(heads, HeadSet):
        raise TypeError(f"heads are a {type(heads).__name__}; pass HeadSet.of({info.n_layers}, {info.n_heads}, heads)")
    if (heads.n_layers, heads.n_heads) != (info.n_layers, info.n_heads):
        raise ValueError(
            f"these heads are of a model of {size(heads.n_layers, heads.n_heads)}; {info.name} has "
            f"{size(info.n_layers, info.n_heads)}"
        )


def _identity(examples: Sequence[Preference]) -> list[Any]:
    """What a fit depends on of examples: texts, labels, criteria and names, and no metadata."""
    return [data_digest(examples), [one.id for one in examples]]


def _criterion_of(examples: Sequence[Preference]) -> str:
    """The one criterion that the examples name, or none."""
    for example in examples:
        responses_of(example)  # a TypeError about anything that is not a preference
    named = sorted({example.criterion for example in examples} - {""})
    if len(named) > 1:
        raise ValueError(f"the examples name {len(named)} criteria ({', '.join(named)}); fit one reward model for each")
    return named[0] if named else ""


def _notes_on_search(selection: Selection, objective: Objective, reward: RewardKind) -> list[str]:
    """A note if a search ended with no head, or with heads that do not help on the very examples they were chosen on."""
    if selection.gates is not None:
        return []
    if not selection.heads:
        return [NO_HEAD]
    mask = selection.heads.mask
    none, chosen = objective(torch.stack([torch.zeros_like(mask), mask])).tolist()
    if chosen <= none:
        what = f"the model without them, {none:.3f}"
    elif chosen <= COIN[reward]:
        what = f"a judge that flips a coin, {COIN[reward]:.3f}"
    else:
        return []
    return [f"the chosen heads judge the examples they were chosen on ({reward} {chosen:.3f}) no better than {what}"]


def _notes_on_kinds(what: str, positive: Sequence[bool], *, least: int) -> list[str]:
    """A note if there are fewer questions of either kind than it takes."""
    counts = {"the positive": sum(positive), "the negative": len(positive) - sum(positive)}
    return [
        f"{kind} verdict is the right one of {count} of the {len(positive)} questions of {what}; more of that kind are needed"
        for kind, count in counts.items()
        if count < least
    ]
