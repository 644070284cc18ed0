"""A cheap measure against an expensive one, head by head: how far the first may replace the second."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence

import numpy as np
import pandas as pd
import plotly.graph_objects as go
from scipy import stats

from arm_lens.display import head_name
from arm_lens.evaluation.statistics import spearman
from arm_lens.frames import ATTRIBUTIONS, checked, criteria_of
from arm_lens.heads import Named, ScoredLike, attributions_frame, evenly_spaced
from arm_lens.plots.cuts import having
from arm_lens.plots.marks import marks, whiskers
from arm_lens.plots.measures import measure_name, outcome_name
from arm_lens.plots.notation import caption, hover_text, score_text, span_text
from arm_lens.plots.panels import facets, tick_step
from arm_lens.plots.theme import INK, MEETS, literal

NAMED = 4
"""Heads of a panel that are named, at most."""
FAR = 4.0
"""How many robust standard deviations from the line make a head far off."""
CROWD = 400
"""Heads of a panel whose intervals are all drawn, at most; of more, only those of the named heads are."""
GRAIN = 2
"""Pixels of the squares of which each has one dot, in a crowd."""
FITTED = 1000
"""Heads, evenly spaced along x, through which the line is fitted, at most: it takes all pairs of them."""
LETTER, LINE, AIR = 6.4, 13, np.array([3, 2])


def measures_against_each_other(
    attributions: Sequence[ScoredLike] | Named[ScoredLike] | pd.DataFrame,
    *,
    x: str = "gradient",
    y: str = "shapley",
    outcome: str = "probability",
    criterion: str | None = None,
) -> go.Figure:
    """A dot per head with both intervals, a panel per criterion, and the rank correlation with its interval in the title.

    Heads far from the Theil-Sen line, by more than four robust standard deviations of the residuals, are named.

    Args:
        attributions: several, also by the criterion's name; or a table like `arm_lens.frames.ATTRIBUTIONS`.
        x: the measure on the x axis.
        y: the measure on the y axis.
        outcome: whose scores.
        criterion: which one; all if not given.
    """
    table = having(checked(attributions_frame(attributions), ATTRIBUTIONS), "outcome", outcome, ATTRIBUTIONS)
    table = table if criterion is None else having(table, "criterion", criterion, ATTRIBUTIONS)
    keys = ["criterion", "layer", "head"]
    right, up = (having(table, "measure", measure, ATTRIBUTIONS).set_index(keys) for measure in (x, y))
    both = right.merge(up, left_index=True, right_index=True, suffixes=("_x", "_y")).reset_index()
    both = both.dropna(subset=["score_x", "score_y"])
    parts = {criterion: both[both["criterion"] == criterion] for criterion in criteria_of(table)}
    few = [criterion for criterion, part in parts.items() if len(part) < 3]
    parts = {criterion: part for criterion, part in parts.items() if len(part) >= 3}
    if not parts:
        raise ValueError(f"fewer than three heads have both {x!r} and {y!r}")
    scores = {criterion: part[["score_x", "score_y"]].to_numpy(dtype=float) for criterion, part in parts.items()}
    notes = [_note(*dots.T) for dots in scores.values()]
    figure, panels = facets(
        list(parts), notes=notes, height=190, left=76, gap_x=54, x=literal(measure_name(x)), y=literal(measure_name(y))
    )
    size, zero = (panels.width, panels.height), {"line": {"color": "#999999", "width": 1}, "layer": "below"}
    named = False
    for index, (criterion, part) in enumerate(parts.items()):
        place, dots = panels.place(index), scores[criterion]
        ends = [part[[f"{end}_x", f"{end}_y"]].to_numpy(dtype=float) for end in ("ci_low", "ci_high")]
        low, high = np.nanmin([dots, *ends], axis=(0, 1)), np.nanmax([dots, *ends], axis=(0, 1))
        margin = np.where(high > low, 0.04 * (high - low), 1.0)
        low, high = low - margin, high + margin
        pixels, far = (dots - low) / (high - low) * size, far_off(*dots.T)
        figure.add_trace(_dots(part, (x, y), pixels, far), **place)
        names = [head_name(int(layer), int(head)) for layer, head in part[["layer", "head"]].to_numpy()[far]]
        for name, dot, shift in zip(names, dots[far].tolist(), _clear_places(names, pixels, far, size), strict=True):
            figure.add_annotation(
                text=name, x=dot[0], y=dot[1], showarrow=False, xanchor="center", yanchor="middle", xshift=float(shift[0]),
                yshift=int(shift[1]), font={"size": 11, "color": INK}, **place,
            )  # fmt: skip
        named |= bool(names)
        figure.add_vline(0, **zero, **place)
        figure.add_hline(0, **zero, **place)
        step = tick_step(high[0] - low[0], panels.width, max(32, panels.width / 5))
        figure.update_xaxes(range=(low[0], high[0]), tick0=0, dtick=step, **place)
        figure.update_yaxes(range=(low[1], high[1]), nticks=5, **place)
    crowded = any(len(part) > CROWD for part in parts.values())
    intervals = "intervals of the named ones" if crowded else "with intervals"
    what = f"Scores on {outcome_name(outcome)}: {span_text(map(len, parts.values()))} heads, {intervals}."
    left_out = f"Fewer than three heads have both for {', '.join(few)}." if few else ""
    return caption(figure, [what, "ρ: Spearman.", "Named: far off the line." * named, left_out])


def far_off(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Indices of points far from the Theil-Sen line, the furthest first; none if the residuals do not vary."""
    if len(np.unique(x)) < 2:
        return np.array([], dtype=int)
    some = np.argsort(x, kind="stable")[evenly_spaced(len(x), FITTED)]
    slope, intercept, _, _ = stats.theilslopes(y[some], x[some])
    residuals = np.abs(y - (intercept + slope * x))
    spread = float(np.median(residuals)) * 1.4826
    order = np.argsort(-residuals, kind="stable")
    return order[residuals[order] > FAR * spread][:NAMED] if spread > 0 else order[:0]


def _note(x: np.ndarray, y: np.ndarray) -> str:
    found = spearman(x, y)
    if np.isnan(found.spearman):
        return "ρ unknown"
    interval = "" if np.isnan(found.ci_low) else f" ({found.ci_low:.2f} to {found.ci_high:.2f})"
    return f"ρ = {found.spearman:.2f}{interval}".replace("-", "−")


def _dots(part: pd.DataFrame, measures: tuple[str, str], pixels: np.ndarray, named: np.ndarray) -> go.Scatter:
    """The heads with their intervals; in a crowd those of the named ones, and one dot where many would lie on each other."""
    crowded, is_named = len(part) > CROWD, np.isin(np.arange(len(part)), named)
    if crowded:
        first = np.zeros(len(part), dtype=bool)
        first[np.unique(np.floor(pixels / GRAIN), axis=0, return_index=True)[1]] = True
        part, is_named = part[first | is_named], is_named[first | is_named]
    texts = []
    for row in part.to_dict("records"):
        lines = [head_name(row["layer"], row["head"])]
        for measure, axis in zip(measures, "xy", strict=True):
            own = {key: row[f"{key}_{axis}"] for key in ("score", "ci_low", "ci_high", "n")}
            lines.append(f"{literal(measure_name(measure))} {score_text(own)}")
        texts.append(hover_text(row["criterion"], *lines))
    drawn = part.assign(**{
        end: part[end].where(is_named | (not crowded)) for axis in "xy" for end in (f"ci_low_{axis}", f"ci_high_{axis}")
    })  # fmt: skip
    thin = {"thickness": 0.8, "width": 0}
    errors = {
        f"error_{axis}": whiskers(drawn, f"score_{axis}", "#a9bccb", ends=(f"ci_low_{axis}", f"ci_high_{axis}"), **thin)
        for axis in "xy"
    }
    look = {"mode": "markers", "marker": {"size": 3.5 if crowded else 5.5, "color": MEETS}, "name": "heads"}
    return marks(part["score_x"], part["score_y"], texts, **look, **errors)


def _clear_places(
    names: Sequence[str], pixels: np.ndarray, far: np.ndarray, size: tuple[int, int]
) -> Iterator[np.ndarray]:
    """Where to put names beside the dots ``far``: each where it covers the fewest dots and no other name."""
    shifts = [(side, lift) for side, lift in itertools.product((1, -1, 0), (0, 10, -10, 17, -17)) if side or lift]
    taken: list[tuple[np.ndarray, np.ndarray]] = []
    for name, index in zip(names, far, strict=True):
        half = np.array([LETTER * len(name) + 2, LINE]) / 2
        tried = []
        for side, lift in shifts:
            shift = np.array([side * (6 + half[0]), lift])
            start, end = pixels[index] + shift - half, pixels[index] + shift + half
            outside = int((start < 0).sum() + (end > size).sum())
            covered = int(((pixels > start - AIR) & (pixels < end + AIR)).all(axis=1).sum())
            meets = sum(bool((start < b).all() and (a < end).all()) for a, b in taken)
            tried.append((1000.0 * (outside + meets) + covered + 0.01 * abs(lift), shift, (start, end)))
        _, shift, box = min(tried, key=lambda one: one[0])
        taken.append(box)
        yield shift
