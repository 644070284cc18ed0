"""What every measure gives: a score per head and outcome, with n and an interval."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd
import torch
from jaxtyping import Float
from scipy import stats
from torch import Tensor

from arm_lens.attribution.outcomes import Outcome
from arm_lens.display import card, extremes, frame_table, score_map
from arm_lens.evaluation.statistics import LEVEL
from arm_lens.frames import ATTRIBUTIONS, checked
from arm_lens.heads import HeadScores, Named, ScoredLike, attributions_frame

SCORED = ATTRIBUTIONS.needing("criterion", "measure", "outcome", "layer", "head", "score")


@dataclass(frozen=True, eq=False)
class Attribution:
    """One measure of every head: what each outcome gains by it. Positive helps the criterion."""

    measure: str
    """``injection``, ``shapley``, ...: as in the column ``measure`` of frames."""
    values: Mapping[Outcome, Float[Tensor, "layer head"]]
    """The mean over examples; not a number at heads that were not measured."""
    errors: Mapping[Outcome, Float[Tensor, "layer head"]]
    """Standard errors of those means as estimates for other examples of their kind; examples of one cluster count as one.
    Not a number where there is no telling."""
    sampling_errors: Mapping[Outcome, Float[Tensor, "layer head"]]
    """Standard errors by random sampling alone, on these very examples; 0 where nothing was sampled."""
    n: int
    """Examples; 0 for a measure that is no mean over examples."""
    n_clusters: int
    criterion: str = ""

    @classmethod
    def of(
        cls,
        measure: str,
        per_example: Mapping[Outcome, Float[Tensor, "example layer head"]],
        clusters: Sequence[Hashable],
        *,
        sampling_errors: Mapping[Outcome, Float[Tensor, "layer head"]] | None = None,
        criterion: str = "",
    ) -> Attribution:
        """The means over examples, with standard errors that take clusters, not examples, as independent.

        Args:
            measure: its name.
            per_example: what each example's outcome gains by each head.
            clusters: to which cluster each example belongs.
            sampling_errors: by outcome, if something was sampled. As the same samples serve all examples, this error is not
                seen in the spread over examples, and is added to it (as squares).
            criterion: its name.
        """
        values = {outcome: one.double().mean(dim=0) for outcome, one in per_example.items()}
        sampled = sampling_errors or {outcome: torch.zeros_like(one) for outcome, one in values.items()}
        errors = {
            outcome: (clustered_error(one, clusters).square() + sampled[outcome].square()).sqrt()
            for outcome, one in per_example.items()
        }
        return cls(measure, values, errors, sampled, len(clusters), len(set(clusters)), criterion)

    @property
    def outcomes(self) -> tuple[Outcome, ...]:
        """What was measured."""
        return tuple(self.values)

    def head_scores(self, outcome: Outcome = "probability") -> HeadScores:
        """The scores as `HeadScores`, for ``top(k)`` and everything else that takes them.

        Raises:
            ValueError: if the outcome was not measured.
        """
        outcome = "search" if "search" in self.values else outcome
        if outcome not in self.values:
            known = ", ".join(map(repr, self.outcomes))
            raise ValueError(f"{self.measure!r} was measured on {known}, not on {outcome!r}")
        return HeadScores(f"{self.measure} on {outcome}", self.values[outcome].float())

    def for_criterion(self, criterion: str) -> Attribution:
        """The same under a criterion's name."""
        return replace(self, criterion=criterion)

    def frame(self) -> pd.DataFrame:
        """Tidy table, a row per outcome and head.

        Columns: criterion, measure, outcome, layer, head, score, se, ci_low, ci_high (95 %, Student's t over clusters),
        sampling_se, n. Where all of C clusters had the same change of accuracy, mostly none, the interval reaches as far as
        C clusters without exception allow, 1 - 0.025^(1/C), instead of having no width.
        """
        parts = []
        for outcome in self.outcomes:
            scored = HeadScores("", self.values[outcome]).frame()
            score, error = self.values[outcome].flatten().numpy(), self.errors[outcome].flatten().numpy()
            reach = stats.t.ppf((1 + LEVEL) / 2, max(self.n_clusters - 1, 1)) * error
            if outcome == "accuracy":
                reach = np.where(error == 0, 1 - ((1 - LEVEL) / 2) ** (1 / max(self.n_clusters, 1)), reach)
            columns = {
                "criterion": self.criterion,
                "measure": self.measure,
                "outcome": outcome,
                "layer": scored["layer"],
                "head": scored["head"],
                "score": score,
                "se": error,
                "ci_low": score - reach,
                "ci_high": score + reach,
                "sampling_se": self.sampling_errors[outcome].flatten().numpy(),
                "n": self.n,
            }
            parts.append(pd.DataFrame(columns))
        return pd.concat(parts, ignore_index=True)

    def __repr__(self) -> str:
        of = f" of {self.criterion!r}" if self.criterion else ""
        first = f"Attribution({self.measure!r}{of} on {', '.join(self.outcomes)}, n = {self.n})"
        shown = "probability" if "probability" in self.values else next(iter(self.outcomes), None)
        frame = self.frame() if shown else pd.DataFrame()
        rows = extremes(frame[frame["outcome"] == shown], name=shown).to_string().splitlines() if shown else []
        return "\n  ".join([first, *rows])

    def _repr_html_(self) -> str:
        facts = {"criterion": self.criterion or None, "outcomes": ", ".join(self.outcomes), "n": self.n or None}
        shown = "probability" if "probability" in self.values else next(iter(self.outcomes), None)
        if shown is None:
            return card(f"Attribution: {self.measure}", facts)
        frame = self.frame()
        rows = extremes(frame[frame["outcome"] == shown], name=shown)
        return card(f"Attribution: {self.measure} on {shown}", facts, score_map(self.values[shown]), frame_table(rows))


def scores_of(
    attributions: Sequence[ScoredLike] | Named[ScoredLike] | pd.DataFrame,
    measure: str = "shapley",
    outcome: Outcome = "probability",
) -> dict[str, HeadScores]:
    """The scores of each criterion, out of attributions: what comparisons and rankings take.

    Args:
        attributions: several, also by the criterion's name; or their table: criterion, measure, outcome, layer, head, score.
        measure: which; ``selection_probability`` serves for every outcome.
        outcome: which.

    Raises:
        ValueError: if there are no such rows, or a head of a criterion is there twice.
    """
    table = checked(attributions_frame(attributions), SCORED)
    wanted = table[(table["measure"] == measure) & table["outcome"].isin([outcome, "search"])]
    if wanted.empty:
        raise ValueError(f"there is no {measure!r} on {outcome!r} in the attributions")
    return {
        str(criterion): HeadScores.from_frame(rows[["layer", "head", "score"]], name=f"{measure} on {outcome}")
        for criterion, rows in wanted.groupby("criterion", sort=False)
    }


def clustered_error(values: Float[Tensor, "example ..."], clusters: Sequence[Hashable]) -> Float[Tensor, " *shape"]:
    r"""The standard error of a mean over examples that come in clusters.

    :math:`\sqrt{\frac{C}{C - 1} \sum_c (\sum_{i \in c} (x_i - \bar x))^2} / n`, the usual standard error where each cluster
    has one example; not a number with a single cluster.
    """
    number = {cluster: place for place, cluster in enumerate(dict.fromkeys(clusters))}
    if len(number) < 2:
        return torch.full(values.shape[1:], float("nan"), dtype=torch.float64)
    centred = values.double() - values.double().mean(dim=0)
    places = torch.tensor([number[cluster] for cluster in clusters])
    sums = torch.zeros(len(number), *values.shape[1:], dtype=torch.float64).index_add_(0, places, centred)
    return (sums.square().sum(dim=0) * len(number) / (len(number) - 1)).sqrt() / len(clusters)
