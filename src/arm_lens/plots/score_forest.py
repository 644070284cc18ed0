"""Scores of one head: a small panel per measure (each has its own unit), a line per criterion, with interval and rank."""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import pandas as pd

from arm_lens.frames import ATTRIBUTIONS, checked, criteria_of
from arm_lens.plots.measures import MEASURES, measure_styles, outcome_name
from arm_lens.plots.notation import DIGIT, HOVER, compact, score_text, whiskers
from arm_lens.plots.panels import balanced_columns
from arm_lens.plots.sheet import HEADING, Sheet
from arm_lens.plots.theme import MUTED, label, literal, narrow

OF_ONE_HEAD = ATTRIBUTIONS.needing("criterion", "measure", "outcome", "score", "ci_low", "ci_high", "n", key=())
ROW = 20
NAME = 24
"""Pixels above a panel for the name of its measure."""
AXIS = 36
"""Pixels below a panel for its axis."""
GAP = 14
DARK = "#333333"


@dataclass(frozen=True)
class ScoreForest:
    """Scores: a small panel per measure, a line per criterion."""

    scores: pd.DataFrame
    measures: list[str]
    criteria: list[str]
    outcome: str
    left_out: list[str]

    @classmethod
    def of(cls, scores: pd.DataFrame, outcome: str) -> ScoreForest:
        """As many measures as there is room for, each with its rows of ``outcome`` or, without any, of its first one."""
        checked(scores, OF_ONE_HEAD)
        present = set(scores["measure"])
        measures = [one for one in MEASURES if one in present] + sorted(present - set(MEASURES))
        most = 4 if narrow() else 6
        parts = []
        for measure in measures[:most]:
            own = scores[scores["measure"] == measure]
            has = outcome if outcome in set(own["outcome"]) else own["outcome"].iloc[0]
            parts.append(own[own["outcome"] == has])
        drawn = pd.concat(parts)
        return cls(drawn, measures[:most], criteria_of(drawn), outcome, measures[most:])

    @property
    def letters(self) -> int:
        """Characters of a criterion's name, at most."""
        return 11 if narrow() else 16

    @property
    def gutter(self) -> float:
        """Pixels for the names of criteria."""
        return 6.8 * min(max(len(one) for one in self.criteria), self.letters) + 10

    @property
    def row_height(self) -> int:
        """Pixels of a row of panels."""
        return NAME + ROW * len(self.criteria) + AXIS

    def columns(self, width: float | int) -> int:
        """Panels in a row."""
        return balanced_columns(len(self.measures), max(1, int((width - self.gutter) // (135 if narrow() else 150))))

    def height(self, width: float | int) -> int:
        """Pixels of the whole part."""
        return HEADING + -(-len(self.measures) // self.columns(width)) * self.row_height

    @property
    def note(self) -> str:
        """Sentences for the caption."""
        styles = measure_styles([*self.measures, *self.left_out])
        outcomes = self.scores.groupby("measure", sort=False)["outcome"].first()
        heads = self.scores["heads"].max() if "heads" in self.scores.columns else np.nan
        return " ".join(
            [
                "Scores with 95 % intervals, filled where they exclude 0.",
                "" if np.isnan(heads) else f"#: rank among {heads:.0f} heads.",
                *(
                    f"{styles[str(measure)].name} is of the outcome '{one}'."
                    for measure, one in outcomes.items()
                    if one != self.outcome
                ),
                f"Not drawn: {', '.join(styles[one].name for one in self.left_out)}." if self.left_out else "",
            ]
        )

    def draw(self, sheet: Sheet, left: float | int, above: float | int, width: float | int) -> None:
        """Draw the part with its upper left corner at ``left`` and ``above``."""
        columns = self.columns(width)
        panel = min((width - self.gutter - (columns - 1) * GAP) / columns, 260)
        what = outcome_name(self.outcome)
        sheet.write(f"<b>Scores</b>{'' if narrow() else ', ' + what}", left, above + 22)
        styles = measure_styles(self.measures)
        for index, measure in enumerate(self.measures):
            row, column = divmod(index, columns)
            x = left + self.gutter + column * (panel + GAP)
            y = above + HEADING + row * self.row_height
            name = styles[measure].name if len(styles[measure].name) * 6.6 <= panel else styles[measure].short
            sheet.write(literal(name), x, y + 20, size=12)
            axis = sheet.add_axes(x, y + NAME, panel, ROW * len(self.criteria))
            own = self.scores[self.scores["measure"] == measure].drop_duplicates("criterion")
            self._panel(sheet, axis, own, panel, named=column == 0)

    def _panel(self, sheet: Sheet, axis: int, own: pd.DataFrame, width: float | int, *, named: bool) -> None:
        own = own.assign(y=[self.criteria.index(str(one)) for one in own["criterion"]])
        known = own[own["score"].notna()]
        low, high = known["ci_low"].fillna(known["score"]), known["ci_high"].fillna(known["score"])
        sure = (known["ci_low"] > 0) | (known["ci_high"] < 0)
        sheet.figure.add_scatter(
            x=known["score"],
            y=known["y"],
            mode="markers",
            marker={"size": 8, "color": np.where(sure, DARK, "#ffffff"), "line": {"width": 1.5, "color": DARK}},
            error_x=whiskers(known, "score", DARK, thickness=1.5, width=0),
            hovertext=[
                f"{label(str(row['criterion']), width=60)}<br>{score_text(row)}" for row in known.to_dict("records")
            ],
            hovertemplate=HOVER,
            xaxis=f"x{axis}",
            yaxis=f"y{axis}",
            showlegend=False,
            name="scores",
        )
        ends = (min(0.0, float(low.min())), max(0.0, float(high.max()))) if len(known) else (0.0, 1.0)
        span = (ends[1] - ends[0]) or 1.0
        ranks = own[own["rank"].notna()] if "rank" in own.columns else own.iloc[:0]
        reach = (ends[0] - 0.08 * span, ends[1] + (0.06 if ranks.empty else 0.32) * span)
        ticks, texts = _ticks(*reach, width)
        sheet.figure.layout[f"xaxis{axis}"].update(
            range=reach, tickvals=ticks, ticktext=texts, showgrid=False, tickangle=0, zeroline=True,
            zerolinecolor="#999999", zerolinewidth=1,
        )  # fmt: skip
        names = [label(one, width=self.letters, lines=1) if named else "" for one in self.criteria]
        sheet.figure.layout[f"yaxis{axis}"].update(
            range=[len(names) - 0.5, -0.5], tickvals=list(range(len(names))), ticktext=names, ticks="", showgrid=False,
            ticklabelstandoff=4,
        )  # fmt: skip
        for row in ranks.itertuples():
            sheet.note(
                text=f"#{row.rank:.0f}", x=1, xref=f"x{axis} domain", y=row.y, yref=f"y{axis}", xanchor="right",
                font={"size": 12, "color": MUTED},
            )  # fmt: skip


def _ticks(low: float | int, high: float | int, width: float | int) -> tuple[list[float], list[str]]:
    """Round numbers whose texts stand clear of one another and within the panel, as many as there is room for."""
    span = high - low
    base = 10.0 ** math.floor(math.log10(span / 10))
    for factor in (1, 2, 5, 10, 20, 50):
        step = base * factor
        ticks = np.arange(math.ceil(low / step), math.floor(high / step) + 1) * step
        digits = max(0, -math.floor(math.log10(step) + 1e-9))
        texts = [compact(float(tick), digits if abs(tick) > step / 2 else 0) for tick in ticks]
        places = (ticks - low) / span * width
        reach = [DIGIT * len(text) / 2 for text in texts]
        inside = [i for i in range(len(ticks)) if reach[i] - 4 <= places[i] <= width + 4 - reach[i]]
        if all(places[b] - places[a] >= reach[a] + reach[b] + 8 for a, b in pairwise(inside)):
            return [float(ticks[i]) for i in inside], [texts[i] for i in inside]
    return [0.0], ["0"]
