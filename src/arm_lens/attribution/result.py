"""What every measure gives: a score per head and outcome, with n and an interval."""

from __future__ import annotations

import textwrap
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, TypeVar

import pandas as pd
import torch
from jaxtyping import Float
from scipy import stats
from torch import Tensor

from arm_lens.attribution.outcomes import Outcome
from arm_lens.display import LINE_WIDTH, Figure, card, extremes, frame_table, score_map, small_print
from arm_lens.evaluation.statistics import LEVEL
from arm_lens.evaluation.trust import CAUSAL, STANDS_IN_FOR, trust_notes, with_trust
from arm_lens.frames import ATTRIBUTIONS, checked
from arm_lens.heads import HeadScores, Named, ScoredLike, attributions_frame

SCORED = ATTRIBUTIONS.needing("criterion", "measure", "outcome", "layer", "head", "score")
Estimated = TypeVar("Estimated", bound="Estimates")


@dataclass(frozen=True, eq=False, kw_only=True)
class Estimates:
    """By outcome, means over examples with their standard errors. Positive helps the criterion."""

    values: Mapping[Outcome, Float[Tensor, "row column"]]
    """The mean over examples; not a number if it was not measured."""
    errors: Mapping[Outcome, Float[Tensor, "row column"]]
    """Standard errors of those means as estimates for other examples of their kind, sampling included; examples of one
    cluster count as one. Not a number if they are unknown."""
    sampling_errors: Mapping[Outcome, Float[Tensor, "row column"]]
    """Standard errors by random sampling alone, on these very examples; 0 if nothing was sampled."""
    n: int
    """Examples; 0 for a measure that is not a mean over examples."""
    n_clusters: int
    criterion: str = ""

    @classmethod
    def of(
        cls: type[Estimated],
        per_example: Mapping[Outcome, Float[Tensor, "example row column"]],
        clusters: Sequence[Hashable],
        *,
        sampling_errors: Mapping[Outcome, Float[Tensor, "row column"]] | None = None,
        **about: Any,
    ) -> Estimated:
        """The means over examples, with standard errors that take clusters, not examples, as independent.

        Args:
            per_example: what the outcome of each example gains.
            clusters: the cluster of each example.
            sampling_errors: by outcome, if something was sampled. As the same samples serve all examples, this error does
                not appear in the spread over examples, and is added to it (as squares).
            about: the other fields.
        """
        values = {outcome: gained.double().mean(dim=0) for outcome, gained in per_example.items()}
        sampled = sampling_errors or {outcome: torch.zeros_like(mean) for outcome, mean in values.items()}
        errors = {
            outcome: torch.hypot(clustered_error(gained, clusters), sampled[outcome])
            for outcome, gained in per_example.items()
        }
        about |= {"n": len(clusters), "n_clusters": len(set(clusters))}
        return cls(values=values, errors=errors, sampling_errors=sampled, **about)

    @property
    def outcomes(self) -> tuple[Outcome, ...]:
        """What was measured."""
        return tuple(self.values)

    def _values(self, outcome: Outcome, measure: str) -> Float[Tensor, "row column"]:
        if outcome not in self.values:
            known = ", ".join(map(repr, self.outcomes))
            raise ValueError(f"{measure!r} was measured on {known}, not on {outcome!r}")
        return self.values[outcome]

    def _columns(self, outcome: Outcome, score: str) -> pd.DataFrame:
        """A row per value: score, se, ci_low, ci_high (95 %, Student's t over clusters), sampling_se, n."""
        names = {score: self.values, "se": self.errors, "sampling_se": self.sampling_errors}
        columns = {name: tensors[outcome].flatten().numpy() for name, tensors in names.items()}
        reach = stats.t.ppf((1 + LEVEL) / 2, max(self.n_clusters - 1, 1)) * columns["se"]
        table = pd.DataFrame(columns | {"ci_low": columns[score] - reach, "ci_high": columns[score] + reach})
        return table[[score, "se", "ci_low", "ci_high", "sampling_se"]].assign(n=self.n)

    def _effects(self, outcome: Outcome) -> pd.DataFrame:
        """The same for effects, which the accuracy of a few examples may seem to know exactly.

        If all of C clusters had the same change of accuracy, mostly none, the interval reaches as far as C clusters without
        exception allow, 1 - 0.025^(1/C), instead of having no width.
        """
        table = self._columns(outcome, "score")
        if outcome == "accuracy":
            reach = 1 - ((1 - LEVEL) / 2) ** (1 / max(self.n_clusters, 1))
            varied = table["se"] != 0
            table["ci_low"] = table["ci_low"].where(varied, table["score"] - reach)
            table["ci_high"] = table["ci_high"].where(varied, table["score"] + reach)
        return table


@dataclass(frozen=True, eq=False, kw_only=True)
class Attribution(Estimates):
    """One measure of every head, ``[layer head]``: what each outcome gains by it."""

    measure: str
    """``injection``, ``shapley``, ...: as in the column ``measure`` of frames."""
    causal: Attribution | None = None
    """The causal measure that a cheap one is displayed with; see `beside`."""

    def beside(self, causal: Attribution) -> Attribution:
        """This cheap measure with its agreement with a causal one of the same examples, which is displayed from now on.

        Raises:
            ValueError: if this measure is not cheap, the other is not causal, or they are of different models, criteria or
                numbers of examples.
        """
        if self.measure not in STANDS_IN_FOR or causal.measure not in CAUSAL:
            raise ValueError(
                f"{self.measure!r} beside {causal.measure!r}: put a cheap measure ({', '.join(STANDS_IN_FOR)}) beside a "
                f"causal one ({', '.join(CAUSAL)})"
            )
        shapes = [tuple(next(iter(one.values.values())).shape) for one in (self, causal)]
        for what, mine, other in (
            ("layers and heads", *shapes),
            ("the criterion", self.criterion, causal.criterion),
            ("examples", self.n or causal.n, causal.n),
        ):
            if mine != other:
                raise ValueError(f"{self.measure!r} and {causal.measure!r} differ in {what}: {mine} and {other}")
        return replace(self, causal=causal)

    def head_scores(self, outcome: Outcome = "probability") -> HeadScores:
        """The scores as `HeadScores`, for ``top(k)`` and everything else that takes them.

        Raises:
            ValueError: if the outcome was not measured.
        """
        outcome = "search" if "search" in self.values else outcome
        return HeadScores(_name_of_scores(self.measure, outcome), self._values(outcome, self.measure).float())

    def frame(self) -> pd.DataFrame:
        """Tidy table, a row per outcome and head.

        Columns: criterion, measure, outcome, layer, head, score, se, ci_low, ci_high (95 %, Student's t over clusters),
        sampling_se, n. If no example's accuracy changed, the interval is still as wide as so few examples allow.
        """
        parts = []
        for outcome, values in self.values.items():
            heads = HeadScores("", values).frame()[["layer", "head"]]
            table = heads.join(self._effects(outcome)).assign(outcome=outcome)
            parts.append(table)
        table = pd.concat(parts, ignore_index=True).assign(criterion=self.criterion, measure=self.measure)
        front = ["criterion", "measure", "outcome"]
        table = table[[*front, *table.columns.drop(front)]]
        if self.causal is None:
            return with_trust(table)
        return with_trust(pd.concat([table, self.causal.frame()], ignore_index=True)).iloc[: len(table)]

    def _extremes(self) -> tuple[Outcome, pd.DataFrame, list[str]]:
        """The outcome on display, its highest and lowest scores, and how far they can be trusted."""
        outcome, frame = self.shown_outcome, self.frame()
        rows = frame[frame["outcome"] == outcome]
        return outcome, extremes(rows, name=outcome), trust_notes(rows)

    @property
    def shown_outcome(self) -> Outcome:
        """The outcome on display."""
        return "probability" if "probability" in self.values else self.outcomes[0]

    def plot(self) -> Figure:
        """The map of scores on the outcome on display: `arm_lens.plots.attribution_maps`."""
        from arm_lens.plots import attribution_maps  # plotly is optional

        return attribution_maps(self, outcome=self.shown_outcome)

    def __repr__(self) -> str:
        of = f" of {self.criterion!r}" if self.criterion else ""
        first = f"Attribution({self.measure!r}{of} on {', '.join(self.outcomes)}, n = {self.n})"
        _, rows, notes = self._extremes()
        wrapped = [line for note in notes for line in textwrap.wrap(note, LINE_WIDTH - 2)]
        return "\n  ".join([first, *rows.to_string().splitlines(), *wrapped])

    def _repr_html_(self) -> str:
        facts = {"criterion": self.criterion or None, "outcomes": ", ".join(self.outcomes), "n": self.n or None}
        outcome, rows, notes = self._extremes()
        title, parts = f"Attribution: {self.measure} on {outcome}", map(small_print, notes)
        return card(title, facts, score_map(self.values[outcome]), frame_table(rows), *parts)


def scores_of(
    attributions: Sequence[ScoredLike] | Named[ScoredLike] | pd.DataFrame,
    measure: str = "shapley",
    outcome: Outcome = "probability",
) -> dict[str, HeadScores]:
    """The scores of each criterion in attributions, for comparisons and rankings.

    Args:
        attributions: several, also by the name of the criterion; or their table: criterion, measure, outcome, layer, head,
            score.
        measure: its name; ``selection_probability`` and ``head_gating`` have every outcome.
        outcome: its name.

    Raises:
        ValueError: if there are no such rows, or a criterion has two scores of a head.
    """
    table = checked(attributions_frame(attributions), SCORED)
    wanted = table[(table["measure"] == measure) & table["outcome"].isin([outcome, "search"])]
    if wanted.empty:
        raise ValueError(f"there is no {measure!r} on {outcome!r} in the attributions")
    return {
        str(criterion): HeadScores.from_frame(rows[["layer", "head", "score"]], name=_name_of_scores(measure, outcome))
        for criterion, rows in wanted.groupby("criterion", sort=False)
    }


def _name_of_scores(measure: str, outcome: Outcome) -> str:
    return f"{measure} on {outcome}" + " (cheap, not causal)" * (measure in STANDS_IN_FOR)


def clustered_error(values: Float[Tensor, "example ..."], clusters: Sequence[Hashable]) -> Float[Tensor, " *shape"]:
    r"""The standard error of a mean over examples that come in clusters.

    :math:`\sqrt{\frac{C}{C - 1} \sum_c (\sum_{i \in c} (x_i - \bar x))^2} / n`, the usual standard error if each cluster
    has one example; not a number with a single cluster.
    """
    number = {cluster: index for index, cluster in enumerate(dict.fromkeys(clusters))}
    count = len(number)
    if count < 2:
        return torch.full(values.shape[1:], torch.nan, dtype=torch.float64)
    centred = values.double() - values.double().mean(dim=0)
    numbers = torch.tensor([number[cluster] for cluster in clusters])
    sums = torch.zeros(count, *values.shape[1:], dtype=torch.float64).index_add_(0, numbers, centred)
    error = (sums.square().sum(dim=0) * count / (count - 1)).sqrt() / len(clusters)
    rounding = 1e-12 * values.double().abs().amax(dim=0)
    return torch.where(error <= rounding, 0.0, error)
