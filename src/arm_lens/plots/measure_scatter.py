"""A cheap measure against a dear one, head by head: how far the first can be trusted for the second."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import numpy as np
import pandas as pd
import plotly.graph_objects as go
from scipy import stats

from arm_lens.display import head_name
from arm_lens.frames import AGREEMENT, ATTRIBUTIONS, checked, criteria_of
from arm_lens.heads import Named, ScoredLike, attributions_frame
from arm_lens.plots.cuts import having
from arm_lens.plots.measures import measure_name, outcome_name
from arm_lens.plots.notation import HOVER, caption, score_text, whiskers
from arm_lens.plots.panels import balanced_columns, line_panels
from arm_lens.plots.theme import INK, MEETS, label, literal, narrow

NAMED = 4
"""Heads of a panel that are named, at most."""
FAR = 4.0
"""How many robust standard deviations from the line make a head far off."""
LETTER, LINE = 6.4, 13


def measures_against_each_other(
    attributions: Sequence[ScoredLike] | Named[ScoredLike] | pd.DataFrame,
    *,
    x: str = "gradient",
    y: str = "shapley",
    outcome: str = "probability",
    criterion: str | None = None,
    agreement: pd.DataFrame | None = None,
) -> go.Figure:
    """A dot per head with both intervals, a panel per criterion, and the rank correlation in its title.

    Heads far from the Theil-Sen line, by more than four robust standard deviations of the residuals, are named.

    Args:
        attributions: several, also by the criterion's name; or a table like `arm_lens.frames.ATTRIBUTIONS`.
        x: the measure to the right.
        y: the measure upwards.
        outcome: whose scores.
        criterion: which one; all if not given.
        agreement: as `agreement_matrix` takes it, for the intervals of the correlations.

    Raises:
        ValueError: if a column is missing, there are no such rows, or fewer than three heads have both measures.
    """
    table = having(checked(attributions_frame(attributions), ATTRIBUTIONS), "outcome", outcome, ATTRIBUTIONS)
    table = table if criterion is None else having(table, "criterion", criterion, ATTRIBUTIONS)
    right, up = (
        having(table, "measure", measure, ATTRIBUTIONS).drop(columns=["measure", "outcome"]) for measure in (x, y)
    )
    both = right.merge(up, on=["criterion", "layer", "head"], suffixes=("_x", "_y")).dropna(
        subset=["score_x", "score_y"]
    )
    counts = both.groupby("criterion").size()
    criteria = [one for one in criteria_of(table) if counts.get(one, 0) >= 3]
    if not criteria:
        raise ValueError(f"fewer than three heads have both {x!r} and {y!r}")
    panels = line_panels(
        len(criteria), height=190, columns=balanced_columns(len(criteria), 2 if narrow() else 4), gap_x=48,
        gap_y=70, left=70, right=16, top=46, bottom=48,
    )  # fmt: skip
    parts = {one: both[both["criterion"] == one] for one in criteria}
    notes = [_note(parts[one], _interval(agreement, one, outcome, x, y)) for one in criteria]
    figure = panels.figure(criteria, notes)
    for index, one in enumerate(criteria):
        place = panels.place(index)
        limits = _limits(parts[one])
        for trace in _dots(parts[one], x, y):
            figure.add_trace(trace, **place)
        _name_far(figure, parts[one], limits, (panels.width, panels.height), place)
        for ends in (
            {"x0": 0, "x1": 0, "y0": 0, "y1": 1, "yref": "y domain"},
            {"y0": 0, "y1": 0, "x0": 0, "x1": 1, "xref": "x domain"},
        ):
            figure.add_shape(type="line", **ends, line={"color": "#999999", "width": 1}, layer="below", **place)
        figure.update_xaxes(
            range=limits[0], nticks=5, title_text=_title(x) if panels.is_lowest(index) else None, **place
        )
        figure.update_yaxes(range=limits[1], nticks=5, title_text=_title(y) if place["col"] == 1 else None, **place)
    figure.update_layout(showlegend=False)
    sizes = sorted({len(part) for part in parts.values()})
    of = f"{sizes[0]}" if len(sizes) == 1 else f"{sizes[0]} to {sizes[-1]}"
    named = any(len(_far(part)) for part in parts.values())
    notes = [
        f"Scores on {outcome_name(outcome)}: {of} heads, with intervals.",
        "ρ: Spearman.",
        "Named: far off the line." * named,
    ]
    caption(figure, notes)
    return figure


def far_off(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Indices of points far from the Theil-Sen line, the furthest first; none if the residuals do not vary."""
    if len(np.unique(x)) < 2:
        return np.array([], dtype=int)
    slope, intercept, _, _ = stats.theilslopes(y, x)
    residuals = np.abs(y - (intercept + slope * x))
    spread = float(np.median(residuals)) * 1.4826
    order = np.argsort(-residuals, kind="stable")
    return order[residuals[order] > FAR * spread][:NAMED] if spread > 0 else order[:0]


def _far(part: pd.DataFrame) -> np.ndarray:
    return far_off(part["score_x"].to_numpy(dtype=float), part["score_y"].to_numpy(dtype=float))


def _title(measure: str) -> str:
    return literal(measure_name(measure))


def _note(part: pd.DataFrame, interval: tuple[float | int, float] | None) -> str:
    rho = float(stats.spearmanr(part["score_x"], part["score_y"]).statistic)
    text = f"ρ = {rho:.2f}" + (f" ({interval[0]:.2f} to {interval[1]:.2f})" if interval else "")
    return text.replace("-", "−")


def _interval(
    agreement: pd.DataFrame | None, criterion: str, outcome: str, x: str, y: str
) -> tuple[float | int, float] | None:
    if agreement is None:
        return None
    rows = having(checked(agreement, AGREEMENT), "outcome", outcome, AGREEMENT)
    for a, b in ((x, y), (y, x)):
        found = rows[(rows["criterion"] == criterion) & (rows["measure_a"] == a) & (rows["measure_b"] == b)]
        if not found.empty:
            return float(found["ci_low"].iloc[0]), float(found["ci_high"].iloc[0])
    return None


def _limits(part: pd.DataFrame) -> tuple[list[float | int], list[float | int]]:
    limits = []
    for axis in "xy":
        values = part[[f"score_{axis}", f"ci_low_{axis}", f"ci_high_{axis}"]].to_numpy(dtype=float)
        low, high = float(np.nanmin(values)), float(np.nanmax(values))
        margin = 0.04 * (high - low) or 1.0
        limits.append([low - margin, high + margin])
    return limits[0], limits[1]


def _dots(part: pd.DataFrame, x: str, y: str) -> list[go.Scatter]:
    texts = []
    for row in part.to_dict("records"):
        lines = [f"<b>{label(row['criterion'], width=60)}</b>", head_name(row["layer"], row["head"])]
        for measure, axis in ((x, "x"), (y, "y")):
            own = {key: row[f"{key}_{axis}"] for key in ("score", "ci_low", "ci_high", "n")}
            lines.append(f"{_title(measure)} {score_text(own)}")
        texts.append("<br>".join(lines))
    errors = {
        f"error_{axis}": whiskers(
            part, f"score_{axis}", "#a9bccb", ends=(f"ci_low_{axis}", f"ci_high_{axis}"), thickness=0.8, width=0
        )
        for axis in "xy"
    }
    dots = go.Scatter(
        x=part["score_x"].to_list(), y=part["score_y"].to_list(), mode="markers", name="heads", hovertext=texts,
        hovertemplate=HOVER, marker={"size": 5.5, "color": MEETS}, **errors,
    )  # fmt: skip
    return [dots]


def _name_far(
    figure: go.Figure,
    part: pd.DataFrame,
    limits: tuple[list[float | int], list[float | int]],
    size: tuple[int, int],
    place: dict[str, int],
) -> None:
    """Names beside the dots, each where it covers the fewest dots and no other name."""
    (x_low, x_high), (y_low, y_high) = limits
    x = (part["score_x"].to_numpy(dtype=float) - x_low) / (x_high - x_low) * size[0]
    y = (part["score_y"].to_numpy(dtype=float) - y_low) / (y_high - y_low) * size[1]
    taken: list[tuple[float | int, float, float, float]] = []
    for index in _far(part):
        name = head_name(int(part["layer"].iloc[index]), int(part["head"].iloc[index]))
        width = LETTER * len(name) + 2
        best: tuple[float | int, float, float, tuple[float | int, float, float, float]] | None = None
        for side, lift in itertools.product((1, -1, 0), (0, 10, -10, 17, -17)):
            if side == 0 and abs(lift) < 10:
                continue
            across = side * (6 + width / 2)
            box = (
                x[index] + across - width / 2,
                x[index] + across + width / 2,
                y[index] + lift - LINE / 2,
                y[index] + lift + LINE / 2,
            )
            outside = sum((box[0] < 0, box[1] > size[0], box[2] < 0, box[3] > size[1]))
            covered = int(((x > box[0] - 3) & (x < box[1] + 3) & (y > box[2] - 2) & (y < box[3] + 2)).sum())
            meets = sum(box[0] < b[1] and b[0] < box[1] and box[2] < b[3] and b[2] < box[3] for b in taken)
            cost = 20.0 * outside + 20.0 * meets + covered + 0.01 * abs(lift)
            if best is None or cost < best[0]:
                best = (cost, across, lift, box)
        if best is None:
            continue
        taken.append(best[3])
        figure.add_annotation(
            text=name, x=float(part["score_x"].iloc[index]), y=float(part["score_y"].iloc[index]), showarrow=False,
            xanchor="center", yanchor="middle", xshift=best[1], yshift=best[2], font={"size": 11, "color": INK}, **place,
        )  # fmt: skip
