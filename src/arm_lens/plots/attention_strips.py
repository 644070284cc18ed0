"""Prompts as lines of tokens, each token on a ground as dark as the attention it gets."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd
import plotly.graph_objects as go

from arm_lens.display import of_each_verdict
from arm_lens.plots.notation import HOVER, digits_for
from arm_lens.plots.sheet import HEADING, LETTER, MONO, Sheet, cells, visible
from arm_lens.plots.theme import HEAT, INK, MUTED, label, literal, narrow

LINE = 21


@dataclass(frozen=True)
class Strips:
    """Prompts as lines of tokens: where each token stands, in characters and lines."""

    tokens: pd.DataFrame
    heads: list[tuple[str, int]]
    """What stands above each prompt, and on which line."""
    gaps: list[int]
    """Lines before which others are left out."""
    count: int
    top: float
    cut: bool
    setting: str

    @classmethod
    def of(cls, attention: pd.DataFrame, shown: int, most: int, width: float | int) -> Strips:
        """The first ``shown`` prompts, both verdicts in turn, on at most ``most`` lines each."""
        setting = ""
        if "setting" in attention.columns:
            setting = str(attention["setting"].iloc[0])
            attention = attention[attention["setting"] == setting]
        wide = int(width / LETTER)
        placed, heads, gaps, line, cut = [], [], [], 0, False
        for name in of_each_verdict(attention, shown):
            name = str(name)
            rows = attention[attention["example"].astype(str) == name].sort_values("position", kind="stable")
            # Words' tokens bring the space before them along, unless all tokens are words.
            joined = bool(rows["token"].str.startswith(" ").any())
            begins = [not joined or token.startswith(" ") for token in rows["token"]]
            texts = [visible(token.removeprefix(" ") or token, wide - 2) for token in rows["token"]]
            spots = _flow([cells(text) for text in texts], begins, wide - 2)
            kept = _weightiest(pd.Series([line for line, _ in spots]), rows["weight"], most)
            head = f", right verdict: {rows['verdict'].iloc[0]}"
            hidden = [place for place, (row, _) in enumerate(spots) if row not in kept]
            if hidden:
                cut = True
                head += f"; {len(hidden)} tokens not shown get {rows['weight'].iloc[hidden].sum():.2f}"
            room = max(int(width / 6.4) - len(head), 8)
            heads.append(((name if len(name) <= room else name[: room - 1] + "…") + head, line))
            gaps += [line + 1 + place for place, row in enumerate(kept) if row - (kept[place - 1] if place else -1) > 1]
            seen = [place for place in range(len(rows)) if place not in set(hidden)]
            one = rows.iloc[seen].assign(
                text=[texts[place] for place in seen],
                line=[line + 1 + kept.index(spots[place][0]) for place in seen],
                column=[spots[place][1] + 2 * bool(hidden) for place in seen],
            )
            placed.append(one)
            line += 1 + len(kept)
        table = pd.concat(placed, ignore_index=True)
        return cls(table, heads, gaps, line, float(table["weight"].max()), cut, setting)

    @property
    def height(self) -> int:
        """In pixels."""
        return HEADING + LINE * self.count

    @property
    def note(self) -> str:
        """For the caption."""
        return "Of long prompts the lines with the most attention are shown." if self.cut else ""

    def draw(self, sheet: Sheet) -> None:
        """At the top of the sheet."""
        figure, rows = sheet.figure, self.tokens
        across, up, number = sheet.axis(0, HEADING, sheet.width, LINE * self.count)
        where = f" ({literal(self.setting)})" if self.setting else ""
        sheet.write(f"<b>Attention from the last token</b>{'' if narrow() else where}", 0, 22)
        for head, line in self.heads:
            sheet.write(literal(head), 0, HEADING + LINE * (line + 1) - 3, size=12, color=MUTED)
        for line in self.gaps:
            sheet.write("…", 0, HEADING + LINE * (line + 1) - 3, size=12, color=MUTED)
        top = self.top if self.top > 0 else 1.0
        widths = np.array([cells(text) for text in rows["text"]])
        left, y = rows["column"].to_numpy() * LETTER, (rows["line"].to_numpy() + 0.5) * LINE
        for x, middle, width, weight in zip(left, y, widths * LETTER, rows["weight"], strict=True):
            if weight / top >= 0.02:
                rectangle = {"x0": x - 0.5, "x1": x + width + 0.5, "y0": middle - 9, "y1": middle + 9, "type": "rect"}
                place = {"xref": f"x{number}", "yref": f"y{number}", "layer": "below"}
                sheet.shapes.append(rectangle | place | {"line": {"width": 0}, "fillcolor": _shade(weight / top)})
        figure.add_trace(
            go.Scatter(
                x=left + widths * LETTER / 2,
                y=y,
                mode="markers+text",
                text=[literal(text) for text in rows["text"]],
                textfont={
                    "family": MONO,
                    "size": 12,
                    "color": ["#ffffff" if w / top > 0.6 else INK for w in rows["weight"]],
                },
                marker={"size": 10, "opacity": 0, "color": rows["weight"], "coloraxis": "coloraxis"},
                hovertext=[
                    f"{label(str(example), width=60)}<br>token {position}: {literal(repr(token))}<br>weight {weight:.4f}"
                    for example, position, token, weight in zip(
                        rows["example"], rows["position"], rows["token"], rows["weight"], strict=True
                    )
                ],
                hovertemplate=HOVER,
                xaxis=f"x{number}",
                yaxis=f"y{number}",
                showlegend=False,
                cliponaxis=False,
                name="attention",
            )
        )
        bare = {"visible": False, "fixedrange": True}
        figure.layout[f"xaxis{number}"] = {**across, **bare, "range": [0, sheet.width]}
        figure.layout[f"yaxis{number}"] = {**up, **bare, "range": [LINE * self.count, 0]}
        digits = digits_for(top)
        figure.update_coloraxes(
            colorscale=[list(stop) for stop in HEAT], cmin=0, cmax=top,
            colorbar={
                "orientation": "h", "x": 1 - 12 / sheet.width, "xanchor": "right", "y": 1, "yanchor": "top", "ypad": 0,
                "xpad": 0, "thickness": 9, "len": 110, "lenmode": "pixels", "outlinewidth": 0, "tickfont": {"size": 12},
                "tickvals": [0, top], "ticktext": ["0", f"{top:.{digits}f}"], "ticklen": 0, "ticks": "",
                "ticklabelposition": "outside",
            },
        )  # fmt: skip


def _flow(widths: list[int], begins: list[bool], wide: int) -> list[tuple[int, int]]:
    """Line and column of each of a row of tokens, with a space before those that begin a word."""
    spots, line, column = [], 0, 0
    for width, begin in zip(widths, begins, strict=True):
        column += bool(begin and column)
        if column and column + width > wide:
            line, column = line + 1, 0
        spots.append((line, column))
        column += width
    return spots


def _weightiest(lines: pd.Series, weights: pd.Series, most: int) -> list[int]:
    """The lines with the most attention, in order, and always the last."""
    last = int(lines.iloc[-1])
    totals = pd.Series(weights.to_numpy()).groupby(lines.to_numpy()).sum().drop(last)
    return sorted([*totals.nlargest(most - 1).index.astype(int), last])


def _shade(share: float) -> str:
    """A colour of the heat scale."""
    stops = [stop for stop, _ in HEAT]
    channels = [[int(color[place : place + 2], 16) for _, color in HEAT] for place in (1, 3, 5)]
    return "rgb(" + ",".join(str(round(float(np.interp(share, stops, channel)))) for channel in channels) + ")"
