r"""Algebra on reward models of one language model: weighted sums, heads of several, another strength, another threshold.

A *sum* weights log-odds. The gap of a reward model is :math:`g_i(p, r)`, the log-odds of Yes, and

.. math:: (w_1 a_1 + \dots + w_n a_n)(p, r) = \textstyle\sum_i w_i\, g_i(p, r).

Probabilities are not summed: near 0 and 1 they say next to nothing about which of two responses is better, and a criterion
that all responses meet would count as much as one on which they differ. So a sum is a number without bounds, its reward and
its gap are the same, and 0 is where the weighted evidence turns. It is no log-odds of anything that was measured, and hence
no probability. Each term asks its own question and writes its own means; a term costs a pass.

A *union* or *intersection* is one reward model: it asks the question of the first, and writes at each head the mean of the
one that has it, or the average of both means. It costs one pass, and nothing is known of how well it judges: measure it.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from numbers import Real
from typing import Any, ClassVar

import torch
from jaxtyping import Float
from torch import Tensor

from arm_lens.engine.language_model import ModelLike
from arm_lens.engine.protocol import LanguageModel
from arm_lens.engine.reading import HeadMeans
from arm_lens.engine.sharing import shared_readings
from arm_lens.heads import HeadSet
from arm_lens.judges.artefact import WrongModelError
from arm_lens.judges.base import SavableJudge, ScoreKind, VerdictJudge
from arm_lens.judges.by_name import judge_class
from arm_lens.judges.checks import Texts
from arm_lens.judges.fingerprint import fingerprint_of
from arm_lens.judges.records import Record
from arm_lens.preferences import Preference

MOST_WEIGHT = 1e6
"""The largest weight, so that no sum of log-odds overflows."""


class Weighable:
    """A judge that can be a term of a weighted sum: ``2 * polite - 0.5 * long``."""

    __array_ufunc__ = None  # a NumPy number times a judge is the judge's to compute

    def _terms(self) -> tuple[tuple[float, Any], ...]:
        return ((1.0, self),)

    def __add__(self, other: Weighable) -> RewardSum:
        return RewardSum((*self._terms(), *other._terms())) if isinstance(other, Weighable) else NotImplemented

    def __radd__(self, other: int) -> RewardSum:
        return RewardSum(self._terms()) if type(other) is int and other == 0 else NotImplemented  # where sum() begins

    def __sub__(self, other: Weighable) -> RewardSum:
        return self + -other if isinstance(other, Weighable) else NotImplemented

    def __mul__(self, weight: float | Real) -> RewardSum:
        if not isinstance(weight, Real) or isinstance(weight, bool):
            return NotImplemented
        return RewardSum(tuple((float(weight) * own, judge) for own, judge in self._terms()))

    __rmul__ = __mul__

    def __neg__(self) -> RewardSum:
        return self * -1.0


class _Term(Record):
    weight: float
    kind: str
    """The kind of the judge."""
    record: dict[str, Any]
    """That judge's own."""


class _SumRecord(Record):
    terms: list[_Term]


@dataclass(frozen=True, eq=False)
class RewardSum(Weighable, SavableJudge):
    """A weighted sum of the log-odds of reward models of one language model; see the module.

    The reward is the sum itself, positive where the evidence for Yes outweighs. Weights may be negative.

    Raises:
        ValueError: if there is no term, a weight is not a finite number or larger than `MOST_WEIGHT`, or only some terms are
            ranked.
        TypeError: if a term gives no log-odds.
        WrongModelError: if the terms' language models differ; the message says how.
    """

    kind: ClassVar[str] = "weighted sum of reward models"
    threshold: ClassVar[float | None] = 0.0
    terms: tuple[tuple[float, Any], ...]
    """Weights and judges: reward models, calibrated ones, or the unsteered model (`GenerativeJudge`)."""

    def __post_init__(self) -> None:
        if not self.terms:
            raise ValueError("a sum has at least one term")
        for weight, judge in self.terms:
            if not (isinstance(judge, VerdictJudge) and isinstance(judge, SavableJudge)):
                raise TypeError(f"a term of a sum is a judge that gives log-odds and can be saved, not {judge!r}")
            if not math.isfinite(weight) or abs(weight) > MOST_WEIGHT:
                raise ValueError(f"a weight is a number between -{MOST_WEIGHT:g} and {MOST_WEIGHT:g}, not {weight}")
            if judge.compares_only != self.compares_only:
                raise ValueError("only some terms of the sum are ranked: fit all in one layout")
            check_same_model(self.terms[0][1], judge)

    def _terms(self) -> tuple[tuple[float, Any], ...]:
        return self.terms

    @property
    def __name__(self) -> str:
        """TRL logs rewards under a function's name."""
        return "+".join(f"{weight:g}*{judge.__name__}" for weight, judge in self.terms).replace("+-", "-")

    @property
    def model(self) -> LanguageModel:
        """The language model of the first term."""
        model: LanguageModel = self.terms[0][1].model
        return model

    @property
    def compares_only(self) -> bool:
        """Whether the layout is ranked."""
        return bool(self.terms[0][1].compares_only)

    def fitted_among(self, examples: Sequence[Preference]) -> tuple[str, ...]:
        """The ids of the examples that a term was fitted on."""
        return tuple(dict.fromkeys(one for _, judge in self.terms for one in judge.fitted_among(examples)))

    def too_long(self, prompts: Texts, responses: Texts) -> dict[int, str]:
        """The examples, by number, that exceed the model's context in the question of a term, each with the error."""
        return {row: why for _, judge in self.terms for row, why in judge.too_long(prompts, responses).items()}

    def score(
        self, prompts: Texts, responses: Texts, *, kind: ScoreKind = "reward", progress: bool = False
    ) -> Float[Tensor, " example"]:
        """The weighted sum of the terms' log-odds, of either kind; otherwise as `Judge.score`."""
        self.check_kind(kind)
        with shared_readings():  # terms that ask the same question read it once
            parts = [weight * judge.gaps(prompts, responses, progress=progress) for weight, judge in self.terms]
        return torch.stack(parts).sum(dim=0)

    def margins(self, prompts: Texts, a: Texts, b: Texts, *, progress: bool = False) -> Float[Tensor, " pair"]:
        """The weighted sum of the terms' margins; otherwise as `Judge.margins`."""
        with shared_readings():
            parts = [weight * judge.margins(prompts, a, b, progress=progress) for weight, judge in self.terms]
        return torch.stack(parts).sum(dim=0)

    def _artefact(self) -> tuple[ModelLike, dict[str, Tensor], dict[str, Any]]:
        parts = [(weight, judge.kind, *judge._artefact()[1:]) for weight, judge in self.terms]
        tensors = {f"{index}.{name}": one for index, part in enumerate(parts) for name, one in part[2].items()}
        terms = [{"weight": weight, "kind": kind, "record": record} for weight, kind, _, record in parts]
        return self.model, tensors, {"terms": terms}

    @classmethod
    def _from_artefact(cls, model: ModelLike, tensors: dict[str, Tensor], record: dict[str, Any]) -> RewardSum:
        terms, used = [], set[str]()
        for index, term in enumerate(_SumRecord.parse(record).terms):
            names = {name: name.removeprefix(f"{index}.") for name in tensors if name.startswith(f"{index}.")}
            used |= names.keys()
            own = {short: tensors[name] for name, short in names.items()}
            if term.kind == cls.kind:
                raise ValueError("a term of a sum is a sum")
            terms.append((term.weight, judge_class(term.kind)._from_artefact(model, own, term.record)))
        if unknown := tensors.keys() - used:
            raise ValueError(f"the tensor {min(unknown)[:80]!r} is unknown")
        return cls(tuple(terms))

    def __repr__(self) -> str:
        terms = ", ".join(f"{weight:+g} * {judge!r}" for weight, judge in self.terms)
        return f"RewardSum({terms})"


def check_same_model(one: Any, other: Any, names: Sequence[str] = ()) -> None:
    """Raise a WrongModelError that says how they differ, unless two judges, called by these names, have the same model."""
    if one.model is other.model:
        return
    first, second = names or (one.__name__, other.__name__)
    difference = fingerprint_of(one.model).difference(fingerprint_of(other.model))
    if difference is not None:
        raise WrongModelError(
            f"{first!r} and {second!r} are of different language models, whose log-odds and means do not combine: "
            f"{other.model.info.name!r} {difference}"
        )


def means_of_both(one: HeadMeans, heads: HeadSet, other: HeadMeans, other_heads: HeadSet) -> HeadMeans:
    """The means of ``other`` at heads that only it has, the average of both where both have one, else those of ``one``."""
    mask, other_mask = heads.mask[..., None], other_heads.mask[..., None]
    average = torch.where(mask, (one.values + other.values) / 2, other.values)
    return HeadMeans(torch.where(other_mask, average, one.values), one.count + other.count)
