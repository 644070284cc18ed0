"""Warning signs: what a reader should know before believing a table, looked for by rule.

A few-shot judge fails in ways that a mean accuracy hides: its scores crowd around one half, more examples do not help,
another seed or another example sample gives another judge, any heads would have done as well as the selected ones, it
learned its examples by heart, it would rather write something else than a verdict, it follows a bias that goes with
correctness, the order of two responses, or only length. Each `Check` has the rule, whose numbers are the constants
below, and where the sign was found. There is no check for a sign that the tables cannot show, because a table or its
rows are missing.

Most rules require more than a difference between two numbers: the interval of one has to exclude the other, so that a
subset with few items raises no alarm by chance alone. Findings are not corrected for the number of checks: they are reasons
to look, not results.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeAlias

import pandas as pd

from arm_lens.evaluation.hacking import are_cells, cells_of
from arm_lens.evaluation.main_setting import against, least_noise, main_rows, main_settings, tested_like
from arm_lens.evaluation.standings import SIGNIFICANT, significant
from arm_lens.frames import SUMMARY, checked

WHOLE_SUMMARY = SUMMARY.needing(
    *(name for name in SUMMARY.required if name != "n"),
    "unit",
    "sd_samples",
    "sd_seeds",
    "n_samples",
    "n_seeds",
    "brier",
    "brier_low",
)
CONTROLS = ("length", "random", "constant", "arm_random_heads", "arm_all_heads")
"""Judges to be beaten, whose own failings are not findings."""
CROWDED = (0.45, 0.55)
CROWDED_SHARE = 0.5
SAME_VERDICT = 0.95
LEAST_GAIN = 0.02
NO_ROOM = 0.95
"""If accuracy is this high with the fewest examples, more cannot be expected to help."""
LARGEST_SD = 0.05
LARGEST_GAP = 0.1
BIAS_FOLLOWED = 0.2
POSITION = 0.1
LEAST_MASS = 0.1
RUN = ["benchmark", "judge", "subset"]
MOST_HEADS = 0.5
RANDOM_HEADS = "arm_random_heads"
GAP_WEIGHTS = {
    "bias on rejected": 1.0,
    "bias on chosen": -1.0,
    "correct, plain": 0.5,
    "incorrect, biased": 0.5,
    "correct, biased": -0.5,
    "incorrect, plain": -0.5,
}
"""Cell -> its weight in `bias_gaps`: positive if avoiding the bias is right there."""
PLACES = 3
"""The most subsets that one finding names."""
RATHER_NOT = "Would rather not give a verdict"


@dataclass(frozen=True)
class Check:
    """A warning sign that was looked for."""

    name: str
    rule: str
    """When the sign counts as present."""
    found: list[str]
    """Where it is present; empty if nowhere."""


@dataclass(frozen=True)
class _Tables:
    """The whole summary, and the rows of the main comparison of all tables."""

    lead: str
    summary: pd.DataFrame
    main: pd.DataFrame
    comparisons: pd.DataFrame
    items: pd.DataFrame
    fits: pd.DataFrame
    heads: pd.DataFrame

    @property
    def judges(self) -> pd.DataFrame:
        """The main rows of everything but controls."""
        return self.main[~self.main["judge"].isin(CONTROLS)]

    @property
    def plain(self) -> pd.DataFrame:
        """Likewise without the cells of bias benchmarks: they are judged together, by `bias_gaps`."""
        return self.judges[~are_cells(self.judges)]


def health(
    summary: pd.DataFrame,
    comparisons: pd.DataFrame,
    items: pd.DataFrame | None = None,
    fits: pd.DataFrame | None = None,
    heads: pd.DataFrame | None = None,
    lead: str = "arm_reinforce",
    n_examples: int | None = None,
) -> list[Check]:
    """Look for every warning sign that the tables can show.

    All checks but that over numbers of examples are of the main comparison of each benchmark (`main_settings`). The cells
    of a bias benchmark have a check of their own instead of the checks of single subsets.

    Args:
        summary: of `arm_lens.evaluation.tables`.
        comparisons: likewise; may be empty.
        items: the verdicts, for crowding scores and base rates.
        fits: judge, benchmark, subset, n_examples, noise, sample, seed, fit_accuracy, and optionally n_heads, position_bias
            (from -1 to 1: how much more often the first response is preferred than the second), verdict_mass (probability
            of all verdicts together) with preferred (what the model would rather write), notes (what was warned of); may be
            empty.
        heads: judge, benchmark, criterion (the subset), n_examples, noise, sample, seed, layer, head, selected; may be empty.
        lead: the judge under study.
        n_examples: of the main comparisons, as `main_settings` takes it.

    Returns:
        The checks, also those that found nothing.

    Raises:
        ValueError: if ``summary`` lacks a column or has no rows.
    """
    settings = main_settings(checked(summary, WHOLE_SUMMARY), n_examples=n_examples)
    empty = pd.DataFrame()
    given = (summary, comparisons, items, fits, heads)
    tables = _Tables(lead, summary, *(main_rows(empty if table is None else table, settings) for table in given))
    return [check for look in CHECKS if (check := look(tables)) is not None]


CHECKS: list[Callable[[_Tables], Check | None]] = []
Rows: TypeAlias = Callable[[_Tables], pd.DataFrame]


def _sign(name: str, rule: str, words: Callable[[pd.Series], str]) -> Callable[[Rows], Rows]:
    """Make a check of a function that gives rows with a column ``found``; without rows there is no check."""

    def add(rows: Rows) -> Rows:
        def look(tables: _Tables) -> Check | None:
            known = rows(tables)
            if known.empty:
                return None
            return Check(name, rule.format(lead=tables.lead), _places(known[known["found"]], words))

        CHECKS.append(look)
        return rows

    return add


@_sign(
    "Scores crowd around one half",
    f"more than {CROWDED_SHARE:.0%} of a judge's probabilities on a subset lie between {CROWDED[0]} and {CROWDED[1]}",
    lambda row: f"{row['inside']:.0%}",
)
def _crowding(tables: _Tables) -> pd.DataFrame:
    if tables.items.empty:
        return tables.items
    items = tables.items.dropna(subset=["probability"])
    shares = _means(items.assign(inside=items["probability"].between(*CROWDED)), "inside")
    return shares.assign(found=(shares["inside"] > CROWDED_SHARE) & ~shares["judge"].isin(CONTROLS))


@_sign(
    "Nearly always the same verdict",
    f"more than {SAME_VERDICT:.0%} of a judge's verdicts on the single responses of a subset are the same, and fewer of the "
    "labels are: its accuracy is the share of that label",
    lambda row: f"{row['share']:.0%} {row['verdict']}, accuracy {row['accuracy']:.3f}",
)
def _same_verdict(tables: _Tables) -> pd.DataFrame:
    if not {"unit", "label", "correct"} <= set(tables.items.columns):
        return pd.DataFrame()
    singles = tables.items[(tables.items["unit"] == "response") & ~are_cells(tables.items)]
    singles = singles[~singles["judge"].isin(CONTROLS)].dropna(subset=["label", "correct"])
    label, accuracy = singles["label"].astype(float), singles["correct"].astype(float)
    said = singles.assign(label=label, accuracy=accuracy, said=accuracy.where(label == 1, 1 - accuracy))
    means = said.groupby(RUN, sort=False)[["label", "said", "accuracy"]].mean().reset_index()
    share, labels = (means[name].where(means["said"] >= 0.5, 1 - means[name]) for name in ("said", "label"))
    verdict = (means["said"] >= 0.5).map({True: "True", False: "False"})
    found = (share > SAME_VERDICT) & (labels <= SAME_VERDICT)
    return means.assign(share=share, verdict=verdict, found=found)


@_sign(
    "No gain from more examples",
    f"accuracy with the most examples is less than {LEAST_GAIN} above that with the fewest, which is below {NO_ROOM}",
    lambda row: f"{row['low']:.3f} with {row['few']}, {row['high']:.3f} with {row['many']}",
)
def _gains(tables: _Tables) -> pd.DataFrame:
    learning = least_noise(tables.summary)
    learning = learning[(learning["n_examples"] > 0) & ~learning["judge"].isin(CONTROLS)]
    learning = learning.sort_values("n_examples", kind="stable")
    ends = learning.groupby(RUN, sort=False).agg(
        few=("n_examples", "first"), many=("n_examples", "last"), low=("accuracy", "first"), high=("accuracy", "last")
    )
    ends = ends[ends["few"] < ends["many"]].reset_index()
    return ends.assign(found=(ends["high"] - ends["low"] < LEAST_GAIN) & (ends["low"] < NO_ROOM))


def _spread(column: str, what: str) -> None:
    rule = f"the standard deviation of a judge's accuracy over {what} exceeds {LARGEST_SD}"

    @_sign(f"Large variance across {what}", rule, lambda row: f"{row[column]:.3f}")
    def _rows(tables: _Tables) -> pd.DataFrame:
        known = tables.judges.dropna(subset=[column])
        return known.assign(found=known[column] > LARGEST_SD)


_spread("sd_seeds", "seeds")
_spread("sd_samples", "example samples")


@_sign(
    "Selected heads no better than random heads",
    f"{{lead}} minus {RANDOM_HEADS} is not above zero with its whole interval and p < {SIGNIFICANT} after Holm",
    lambda row: f"{row['difference']:+.3f}, {row['ci_low']:+.3f} to {row['ci_high']:+.3f}, p {row['p_holm']:.2g}",
)
def _random_heads(tables: _Tables) -> pd.DataFrame:
    own = against(tables.comparisons, tables.lead, RANDOM_HEADS)
    return own if own.empty else own.assign(judge=tables.lead, found=~(significant(own) & (own["difference"] > 0)))


@_sign(
    "No head selected",
    "a search ended with no head, so that the reward model judges as the model does without it",
    lambda row: f"in {row['none']:.0f} of {row['fits']} fits",
)
def _no_head(tables: _Tables) -> pd.DataFrame:
    if "n_heads" not in tables.fits.columns:
        return pd.DataFrame()
    fits = tables.fits[~tables.fits["judge"].isin(CONTROLS)].dropna(subset=["n_heads"])
    counts = fits.assign(none=fits["n_heads"] == 0).groupby(RUN, sort=False)["none"].agg(["sum", "size"]).reset_index()
    return counts.rename(columns={"sum": "none", "size": "fits"}).assign(found=counts["sum"] > 0)


@_sign(
    "Warned of while fitting",
    "a fit was not what was probably meant: a criterion without a name, folds or examples of one kind, examples both "
    "read and chosen on",
    lambda row: str(row["notes"]),
)
def _notes(tables: _Tables) -> pd.DataFrame:
    if "notes" not in tables.fits.columns:
        return pd.DataFrame()
    own = tables.fits.loc[~tables.fits["judge"].isin(CONTROLS), [*RUN, "notes"]].drop_duplicates()
    return own.assign(found=own["notes"].notna() & (own["notes"] != ""))


@_sign(
    RATHER_NOT,
    f"the model gives all verdicts together a probability below {LEAST_MASS}, mean over questions: verdicts are what is left "
    "of what it would write",
    lambda row: f"{row['verdict_mass']:.2g}" + (f", rather {row['preferred']}" if row["preferred"] else ""),
)
def _mass(tables: _Tables) -> pd.DataFrame:
    if "verdict_mass" not in tables.fits.columns:
        return pd.DataFrame()
    known = tables.fits.dropna(subset=["verdict_mass"])
    rather = known["preferred"].fillna("") if "preferred" in known else ""
    groups = known.assign(preferred=rather).groupby(RUN, sort=False)
    found = groups.agg(verdict_mass=("verdict_mass", "mean"), preferred=("preferred", "max")).reset_index()
    return found.assign(found=found["verdict_mass"] < LEAST_MASS)


@_sign(
    "One label only in the test",
    "all responses of a subset have the same label, so that a judge that always says the same is right, and there is no AUC",
    lambda row: f"all {row['label']}",
)
def _one_label(tables: _Tables) -> pd.DataFrame:
    if not {"unit", "label"} <= set(tables.items.columns):
        return pd.DataFrame()
    singles = tables.items[(tables.items["unit"] == "response") & ~are_cells(tables.items)]
    labels = singles.groupby(["benchmark", "subset"], sort=False)["label"].agg(["first", "nunique"]).reset_index()
    return labels.rename(columns={"first": "label"}).assign(judge="every judge", found=labels["nunique"] == 1)


@_sign(
    "Most heads selected",
    f"more than {MOST_HEADS:.0%} of the model's heads are in the set of {{lead}}, mean over fits",
    lambda row: f"{row['selected']:.0%}",
)
def _most_heads(tables: _Tables) -> pd.DataFrame:
    if tables.heads.empty:
        return tables.heads
    own = tables.heads[tables.heads["judge"] == tables.lead].astype({"selected": float})
    shares = _means(own.rename(columns={"criterion": "subset"}), "selected")
    return shares.assign(found=shares["selected"] > MOST_HEADS)


@_sign(
    "Fitting accuracy far above test accuracy",
    f"accuracy on the examples that a judge was fitted on is more than {LARGEST_GAP} above that on test items, which are "
    "judged in the same way",
    lambda row: f"{row['fit_accuracy']:.3f} against {row['accuracy']:.3f}",
)
def _fit_gap(tables: _Tables) -> pd.DataFrame:
    fitted = _means(tables.fits, "fit_accuracy")
    if fitted.empty:
        return fitted
    both = fitted.merge(tested_like(fitted, tables.main), on=RUN).dropna(subset=["accuracy"])
    return both.assign(found=both["fit_accuracy"] - both["accuracy"] > LARGEST_GAP)


@_sign(
    "Follows the bias rather than correctness",
    "accuracy where the bias is on the worse response and where it is on the better one (single responses: where "
    f"bias and correctness disagree and where they agree) differ by more than {BIAS_FOLLOWED} and by more than "
    "their intervals; positive: it takes the bias for a fault, negative: for a merit",
    lambda row: f"{row['gap']:+.3f}",
)
def _bias(tables: _Tables) -> pd.DataFrame:
    cells = bias_gaps(tables.judges)
    return cells.assign(found=(cells["gap"].abs() > BIAS_FOLLOWED) & (cells["gap"].abs() > cells["error"]))


def bias_gaps(summary: pd.DataFrame) -> pd.DataFrame:
    """How much a judge's accuracy owes to the bias: where avoiding it is right, minus where following it is right.

    Pairs: "bias on rejected" minus "bias on chosen". Single responses: the mean of "correct, plain" and "incorrect,
    biased" minus the mean of the other two cells. 1 is a judge that only avoids the bias, -1 one that only follows it.

    Args:
        summary: benchmark, subset ("bias | mapping | cell"), judge, accuracy, ci_low, ci_high; other subsets and judges
            without all of these cells are left out.

    Returns:
        benchmark, judge, subset ("bias, mapping examples"), gap, error (half of its 95 % interval: the cells' half
        intervals as errors of independent numbers, which is wide if the same items are hard in several cells).
    """
    cells = cells_of(summary)
    cells = cells[cells["cell"].isin(list(GAP_WEIGHTS))]
    weight = cells["cell"].map(GAP_WEIGHTS).astype(float)
    half = weight * (cells["ci_high"] - cells["ci_low"]) / 2
    subset = cells["bias"] + ", " + cells["mapping"] + " examples"
    cells = cells.assign(subset=subset, weight=weight.abs(), gap=weight * cells["accuracy"], error=half**2)
    sums = cells.groupby(RUN, sort=False).agg(
        gap=("gap", lambda gaps: gaps.sum(skipna=False)), error=("error", "sum"), weight=("weight", "sum")
    )
    whole = sums[(sums.pop("weight") == 2) & sums["gap"].notna()]
    return whole.assign(error=whole["error"] ** 0.5).reset_index()


@_sign(
    "Prefers a position",
    f"a ranked judge prefers the first response more often than the second by more than {POSITION}, or the second more often",
    lambda row: f"the {'first' if row['position_bias'] > 0 else 'second'}, {row['position_bias']:+.3f}",
)
def _position(tables: _Tables) -> pd.DataFrame:
    means = _means(tables.fits, "position_bias")
    return means if means.empty else means.assign(found=means["position_bias"].abs() > POSITION)


def _below(other: str, name: str) -> None:
    rule = f"the whole interval of a judge's accuracy lies below the accuracy of {other}"

    @_sign(name, rule, lambda row: f"{row['accuracy']:.3f} against {row['bar']:.3f}")
    def _rows(tables: _Tables) -> pd.DataFrame:
        where = ["benchmark", "subset"]
        bar = tables.main.loc[tables.main["judge"] == other, [*where, "accuracy"]].rename(columns={"accuracy": "bar"})
        rest = tables.plain[tables.plain["judge"] != other].merge(bar, on=where)
        return rest.assign(found=rest["ci_high"] < rest["bar"])


@_sign(
    "Judges the wrong way round",
    "the whole interval of a judge's AUC, or of its accuracy if it has no AUC, lies below one half: more verdicts are wrong "
    "than by guessing, as they are if the labels of the test or of the examples mean the opposite",
    lambda row: f"{row['share']:.3f}, {row['low']:.3f} to {row['high']:.3f}",
)
def _reversed(tables: _Tables) -> pd.DataFrame:
    known = tables.plain
    shares = pd.DataFrame({"share": known["accuracy"], "low": known["ci_low"], "high": known["ci_high"]})
    if {"auc", "auc_low", "auc_high"} <= set(known.columns):
        ranked = known[["auc", "auc_low", "auc_high"]].set_axis(shares.columns, axis="columns")
        shares = shares.where(known["auc"].isna(), ranked)
    return known.assign(**shares, found=shares["high"] < 0.5)


_below("length", "Beaten by a trivial control")
_below("zero_shot", "Below zero-shot")


@_sign(
    "Poorly calibrated",
    "the whole interval of a judge's Brier score lies above that of always giving the share of True labels "
    "(0.25 for pairs, and if labels are not at hand)",
    lambda row: f"{row['brier']:.3f} against {row['bar']:.3f}",
)
def _calibration(tables: _Tables) -> pd.DataFrame:
    graded = tables.plain.dropna(subset=["brier"]).assign(bar=0.25)
    if not tables.items.empty:
        where = ["benchmark", "unit", "subset"]
        responses = tables.items[tables.items["unit"] == "response"].astype({"label": float})
        share = graded.join(responses.groupby(where)["label"].mean(), on=where)["label"]
        graded["bar"] = (share * (1 - share)).where(share.between(0, 1, inclusive="neither"), 0.25)
    return graded.assign(found=graded["brier_low"].fillna(graded["brier"]) > graded["bar"])


def _means(table: pd.DataFrame, column: str) -> pd.DataFrame:
    """The mean of a column by benchmark, judge and subset; empty if the table has no value of it."""
    if column not in table.columns:
        return pd.DataFrame()
    return table.dropna(subset=[column]).groupby(RUN, sort=False)[column].mean().reset_index()


def _places(rows: pd.DataFrame, words: Callable[[pd.Series], str]) -> list[str]:
    """One finding per benchmark and judge, naming subsets with what was found there."""
    findings = []
    for (benchmark, judge), group in rows.groupby(["benchmark", "judge"], sort=False):
        seen = [f"{row['subset']} ({words(row)})" for _, row in group.iterrows()]
        rest = len(seen) - PLACES
        more = f"; and {rest} more subset{'s' * (rest > 1)}" if rest > 0 else ""
        findings.append(f"{benchmark}, {judge}: {'; '.join(seen[:PLACES])}{more}")
    return findings
