"""Scores of one head: a small panel per measure (each has its own unit), a line per criterion, with interval and rank."""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import pandas as pd
import plotly.graph_objects as go

from arm_lens.frames import ATTRIBUTIONS, checked, criteria_of
from arm_lens.plots.measures import MEASURES, measure_styles, outcome_name
from arm_lens.plots.notation import DIGIT, HOVER, compact, score_text, whiskers
from arm_lens.plots.sheet import HEADING, Sheet
from arm_lens.plots.theme import MUTED, label, literal, narrow

OF_ONE_HEAD = ATTRIBUTIONS.needing("criterion", "measure", "outcome", "score", "ci_low", "ci_high", "n", key=())
ROW = 20
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
        """Of each measure the rows of ``outcome``, or of the first that it has; of measures as many as there is room for."""
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

    def columns(self, width: float | int) -> int:
        """Panels in a row."""
        most = max(1, int((width - self.gutter) // (135 if narrow() else 150)))
        rows = -(-len(self.measures) // most)
        return -(-len(self.measures) // rows)

    def height(self, width: float | int) -> int:
        """In pixels."""
        rows = -(-len(self.measures) // self.columns(width))
        return HEADING + rows * (24 + ROW * len(self.criteria) + 36)

    @property
    def note(self) -> str:
        """For the caption."""
        styles = measure_styles([*self.measures, *self.left_out])
        other = {
            styles[str(measure)].name: own["outcome"].iloc[0]
            for measure, own in self.scores.groupby("measure", sort=False)
            if own["outcome"].iloc[0] != self.outcome
        }
        heads = self.scores["heads"].max() if "heads" in self.scores.columns else np.nan
        return " ".join(
            [
                "Scores with 95 % intervals, filled where they exclude 0.",
                "" if np.isnan(heads) else f"#: rank among {heads:.0f} heads.",
                *(f"{name} is of the outcome '{one}'." for name, one in other.items()),
                f"Not drawn: {', '.join(styles[one].name for one in self.left_out)}." if self.left_out else "",
            ]
        )

    def draw(self, sheet: Sheet, left: float | int, above: float | int, width: float | int) -> None:
        """With its upper left corner there."""
        columns, gap = self.columns(width), 14
        panel = min((width - self.gutter - (columns - 1) * gap) / columns, 260)
        what = outcome_name(self.outcome)
        sheet.write(f"<b>Scores</b>{'' if narrow() else ', ' + what}", left, above + 22)
        styles = measure_styles(self.measures)
        for index, measure in enumerate(self.measures):
            row, column = divmod(index, columns)
            x = left + self.gutter + column * (panel + gap)
            y = above + HEADING + row * (24 + ROW * len(self.criteria) + 36)
            name = styles[measure].name if len(styles[measure].name) * 6.6 <= panel else styles[measure].short
            sheet.write(literal(name), x, y + 20, size=12)
            own = self.scores[self.scores["measure"] == measure].drop_duplicates("criterion")
            self._panel(sheet, own, (x, y + 24, panel), named=column == 0)

    def _panel(
        self, sheet: Sheet, own: pd.DataFrame, place: tuple[float | int, float | int, float | int], *, named: bool
    ) -> None:
        figure, (x, y, width) = sheet.figure, place
        across, up, number = sheet.axis(x, y, width, ROW * len(self.criteria))
        own = own.assign(y=[self.criteria.index(str(one)) for one in own["criterion"]])
        known = own[own["score"].notna()]
        low, high = known["ci_low"].fillna(known["score"]), known["ci_high"].fillna(known["score"])
        sure = ((known["ci_low"] > 0) | (known["ci_high"] < 0)).to_numpy()
        names = [label(str(one), width=60) for one in known["criterion"]]
        hovers = [f"{name}<br>{score_text(row)}" for name, row in zip(names, known.to_dict("records"), strict=True)]
        figure.add_trace(
            go.Scatter(
                x=known["score"],
                y=known["y"],
                mode="markers",
                marker={
                    "size": 8, "color": [DARK if one else "#ffffff" for one in sure], "line": {"width": 1.5, "color": DARK},
                },
                error_x=whiskers(known, "score", DARK, thickness=1.5, width=0),
                hovertext=hovers,
                hovertemplate=HOVER,
                xaxis=f"x{number}",
                yaxis=f"y{number}",
                showlegend=False,
                name="scores",
            )
        )  # fmt: skip
        ends = (min(0.0, float(low.min())), max(0.0, float(high.max()))) if len(known) else (0.0, 1.0)
        span = (ends[1] - ends[0]) or 1.0
        ranks = own["rank"] if "rank" in own.columns else pd.Series(np.nan, index=own.index)
        beside = 0.32 if ranks.notna().any() else 0.06
        axis = (ends[0] - 0.08 * span, ends[1] + beside * span)
        ticks, texts = _ticks(*axis, width)
        figure.layout[f"xaxis{number}"] = {
            **across, "range": axis, "tickvals": ticks, "ticktext": texts, "showgrid": False, "tickangle": 0,
            "zeroline": True, "zerolinecolor": "#999999", "zerolinewidth": 1,
        }  # fmt: skip
        names = (
            [label(one, width=self.letters, lines=1) for one in self.criteria] if named else [""] * len(self.criteria)
        )
        figure.layout[f"yaxis{number}"] = {
            **up, "range": [len(self.criteria) - 0.5, -0.5], "tickvals": list(range(len(self.criteria))),
            "ticktext": names, "ticks": "", "showgrid": False, "ticklabelstandoff": 4,
        }  # fmt: skip
        for line, rank in zip(own["y"], ranks, strict=True):
            if not np.isnan(rank):
                sheet.note(
                    text=f"#{rank:.0f}", x=1, xref=f"x{number} domain", y=line, yref=f"y{number}", xanchor="right",
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
