"""Prompts as lines of tokens, each token on a ground as dark as the attention it gets."""

from __future__ import annotations

from dataclasses import dataclass

import pandas as pd
from plotly.colors import sample_colorscale

from arm_lens.display import of_each_verdict
from arm_lens.plots.notation import HOVER, digits_for, hover_text
from arm_lens.plots.sheet import HEADING, LETTER, MONO, Sheet, cells, visible
from arm_lens.plots.theme import HEAT, INK, MUTED, literal, narrow

LINE = 21


@dataclass(frozen=True)
class Strips:
    """Prompts as lines of tokens: where each token stands, in characters and lines."""

    tokens: pd.DataFrame
    heads: list[tuple[str, int]]
    """The heading of each prompt, and its line."""
    gaps: list[int]
    """Lines before which others are left out."""
    count: int
    top: float
    setting: str

    @classmethod
    def of(
        cls, attention: pd.DataFrame, shown: int, most: int, width: float | int, setting: str | None = None
    ) -> Strips:
        """The first ``shown`` prompts of a setting, both verdicts in turn, on at most ``most`` lines each.

        Raises:
            ValueError: if the table has no such setting.
        """
        settings = list(attention["setting"].unique()) if "setting" in attention.columns else []
        if setting is not None and setting not in settings:
            known = ", ".join(map(repr, settings)) or "no column 'setting'"
            raise ValueError(f"the table of attention has no setting {setting!r}; it has {known}")
        if settings:
            setting = str(settings[0] if setting is None else setting)
            attention = attention[attention["setting"] == setting]
        wide = int(width / LETTER)
        parts, heads, gaps, line = [], [], [], 0
        for name in of_each_verdict(attention, shown):
            rows = attention[attention["example"] == name].sort_values("position", kind="stable", ignore_index=True)
            # Words' tokens begin with the space before them, unless all tokens are words.
            joined = bool(rows["token"].str.startswith(" ").any())
            begins = [not joined or token.startswith(" ") for token in rows["token"]]
            texts = [visible(token.removeprefix(" ") or token, wide - 2) for token in rows["token"]]
            lines, columns = zip(*_flow([cells(text) for text in texts], begins, wide - 2), strict=True)
            rows = rows.assign(text=texts, line=lines, column=columns)
            drawn = _weightiest(rows["line"], rows["weight"], most)
            inside = rows["line"].isin(drawn)
            head = f", right verdict: {rows['verdict'].iloc[0]}"
            if not inside.all():
                head += f"; {(~inside).sum()} tokens not shown get {rows.loc[~inside, 'weight'].sum():.2f}"
                rows["column"] += 2
            name, room = str(name), max(int(width / 6.4) - len(head), 8)
            heads.append(((name if len(name) <= room else name[: room - 1] + "…") + head, line))
            gaps += [
                line + 1 + index for index, now in enumerate(drawn) if now - (drawn[index - 1] if index else -1) > 1
            ]
            place = {row: line + 1 + index for index, row in enumerate(drawn)}
            parts.append(rows[inside].assign(line=rows["line"].map(place)))
            line += 1 + len(drawn)
        table = pd.concat(parts, ignore_index=True).astype({"line": int})
        return cls(table, heads, gaps, line, float(table["weight"].max()), setting or "")

    @property
    def height(self) -> int:
        """Pixels of the whole part."""
        return HEADING + LINE * self.count

    @property
    def note(self) -> str:
        """Sentences for the caption."""
        which = f"The prompts are {literal(self.setting)}." if self.setting and narrow() else ""
        return f"{which} {'Of long prompts the lines with the most attention are shown.' if self.gaps else ''}".strip()

    def draw(self, sheet: Sheet) -> None:
        """Draw the part at the top of the sheet."""
        axis, rows = sheet.add_axes(0, HEADING, sheet.width, LINE * self.count), self.tokens
        where = f" ({literal(self.setting)})" if self.setting and not narrow() else ""
        sheet.write(f"<b>Attention from the last token</b>{where}", 0, 22)
        for head, line in [*self.heads, *(("…", line) for line in self.gaps)]:
            sheet.write(literal(head), 0, HEADING + LINE * (line + 1) - 3, size=12, color=MUTED)
        top = self.top if self.top > 0 else 1.0
        shares, widths = rows["weight"] / top, rows["text"].map(cells) * LETTER
        left, middle = rows["column"] * LETTER, (rows["line"] + 0.5) * LINE
        for x, y, width, share in zip(left, middle, widths, shares, strict=True):
            if share >= 0.02:
                sheet.shapes.append({
                    "x0": x - 0.5, "x1": x + width + 0.5, "y0": y - 9, "y1": y + 9, "type": "rect", "xref": f"x{axis}",
                    "yref": f"y{axis}", "layer": "below", "line": {"width": 0},
                    "fillcolor": sample_colorscale(HEAT, [share])[0],
                })  # fmt: skip
        sheet.figure.add_scatter(
            x=left + widths / 2,
            y=middle,
            mode="markers+text",
            text=rows["text"].map(literal),
            textfont={"family": MONO, "size": 12, "color": ["#ffffff" if share > 0.6 else INK for share in shares]},
            marker={"size": 10, "opacity": 0, "color": rows["weight"], "coloraxis": "coloraxis"},
            hovertext=[
                hover_text(example, f"token {position}: {literal(repr(token))}", f"weight {weight:.4f}")
                for example, position, token, weight in rows[["example", "position", "token", "weight"]].to_numpy()
            ],
            hovertemplate=HOVER,
            showlegend=False,
            cliponaxis=False,
            name="attention",
            **sheet.on(axis),
        )
        bare = {"visible": False, "fixedrange": True}
        sheet.x(axis).update(range=[0, sheet.width], **bare)
        sheet.y(axis).update(range=[LINE * self.count, 0], **bare)
        sheet.figure.update_coloraxes(
            colorscale=HEAT, cmin=0, cmax=top,
            colorbar={
                "orientation": "h", "x": 1 - 12 / sheet.width, "xanchor": "right", "y": 1, "yanchor": "top", "ypad": 0,
                "xpad": 0, "thickness": 9, "len": 110, "lenmode": "pixels", "outlinewidth": 0, "tickfont": {"size": 12},
                "tickvals": [0, top], "ticktext": ["0", f"{top:.{digits_for(top)}f}"], "ticklen": 0, "ticks": "",
                "ticklabelposition": "outside",
            },
        )  # fmt: skip


def _flow(widths: list[int], begins: list[bool], wide: int) -> list[tuple[int, int]]:
    """Line and column of each token, with a space before tokens that begin a word."""
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
    totals = weights.groupby(lines).sum().drop(last)
    return sorted([*totals.nlargest(most - 1).index.astype(int), last])
