"""Scores of one head: a small panel per measure (each has its own unit), a line per criterion, with interval and rank."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd

from arm_lens.frames import ATTRIBUTIONS, checked, criteria_of
from arm_lens.plots.measures import measure_styles, outcome_name, trust_captions
from arm_lens.plots.notation import HOVER, excludes, hover_text, score_text, whiskers
from arm_lens.plots.panels import balanced_columns, rows_axis
from arm_lens.plots.sheet import HEADING, ZERO_LINE, Sheet
from arm_lens.plots.theme import MUTED, label, literal, narrow

OF_ONE_HEAD = ATTRIBUTIONS.needing("criterion", "measure", "outcome", "score", "ci_low", "ci_high", "n", key=())
ROW = 20
NAME = 24
"""Pixels above a panel for the name of its measure."""
AXIS = 36
"""Pixels below a panel for its axis."""
GAP = 14
DARK = "#333333"
LETTER = 7.0
"""Pixels of a digit of a rank."""


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
        measures = list(measure_styles(sorted(present)))
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
                *trust_captions(self.scores),
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
        sheet.figure.add_scatter(
            x=known["score"],
            y=known["y"],
            mode="markers",
            marker={
                "size": 8,
                "color": np.where(excludes(known), DARK, "#ffffff"),
                "line": {"width": 1.5, "color": DARK},
            },
            error_x=whiskers(known, "score", DARK, thickness=1.5, width=0),
            hovertext=[hover_text(row["criterion"], score_text(row)) for row in known.to_dict("records")],
            hovertemplate=HOVER,
            showlegend=False,
            name="scores",
            **sheet.on(axis),
        )
        ends = (min(0.0, float(low.min())), max(0.0, float(high.max()))) if len(known) else (0.0, 1.0)
        span = (ends[1] - ends[0]) or 1.0
        ranks = own[own["rank"].notna()] if "rank" in own.columns else own.iloc[:0].assign(rank=0.0)
        written = max((len(f"#{rank:.0f}") for rank in ranks["rank"]), default=0)
        room = (LETTER * written + 6) / width  # the rank stands at the right edge
        reach = (ends[0] - 0.08 * span, ends[1] + (0.06 + 1.14 * room / (1 - room)) * span)
        sheet.x(axis).update(range=reach, nticks=max(2, int(width / 36)), showgrid=False, tickangle=0, **ZERO_LINE)
        names = [label(one, width=self.letters, lines=1) if named else "" for one in self.criteria]
        sheet.y(axis).update(rows_axis(names), ticks="", showgrid=False)
        grey, right = {"size": 12, "color": MUTED}, {"x": 1, "xref": f"x{axis} domain", "xanchor": "right"}
        for row in ranks.itertuples():
            sheet.note(text=f"#{row.rank:.0f}", y=row.y, yref=f"y{axis}", font=grey, **right)
