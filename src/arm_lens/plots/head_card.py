"""A head card as a figure: what one head attends to, what its mean writes, and how it scores.

Three sections, each from a table of a head card (`arm_lens.attribution.head_card`): prompts whose tokens have a background
as dark as the attention they get; the tokens that the mean promotes and suppresses by the direct path; and, measure by
measure (each with its own axis, as their units differ), the score for every criterion with its interval and rank.
"""

from __future__ import annotations

import unicodedata
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import numpy as np
import pandas as pd
import plotly.graph_objects as go
from plotly.colors import sample_colorscale

from arm_lens.display import of_each_verdict
from arm_lens.frames import ATTENTION, ATTRIBUTIONS, TOKENS, checked, criteria_of
from arm_lens.plots.marks import HOVER, marks, whiskers
from arm_lens.plots.measures import measure_styles, outcome_name, trust_captions
from arm_lens.plots.notation import caption, digits_for, excludes, hover_text, largest, score_text, signed
from arm_lens.plots.panels import balanced_columns, rows_axis, tick_step
from arm_lens.plots.sheet import SIDE, Sheet, of_setting
from arm_lens.plots.theme import HEAT, INK, MUTED, labels, literal, narrow, page_width

MONO = "'DejaVu Sans Mono', 'Liberation Mono', Menlo, 'Courier New', monospace"
LETTER = 7.3
"""Pixels of a character of the fixed-width type at 12 pixels."""
HEADING = 30
"""Pixels that the heading of a section takes."""
LINE = 21
"""Pixels from one line of tokens to the next."""
BAR, ROW, NAME, AXIS = 19, 20, 24, 36
"""Pixels of a token's bar, of a criterion's row, and above and below a panel of scores for its name and axis."""
GAP = 14
DIRECTIONS = ("promoted", "suppressed")
ONE_SCORE = ("criterion", "measure", "outcome")
OF_ONE_HEAD = ATTRIBUTIONS.needing("criterion", "measure", "outcome", "score", "ci_low", "ci_high", "n", key=ONE_SCORE)
POSITIVE, NEGATIVE, DARK = "#2f7fb5", "#c46a1b", "#333333"
ZERO_LINE = {"zeroline": True, "zerolinecolor": "#999999", "zerolinewidth": 1}


@runtime_checkable
class CardLike(Protocol):
    """What a head card has (`arm_lens.attribution.HeadCard`)."""

    @property
    def name(self) -> str:
        """Its name in titles."""

    @property
    def attention(self) -> pd.DataFrame:
        """A table like `arm_lens.frames.ATTENTION`."""

    @property
    def tokens(self) -> pd.DataFrame:
        """A table like `arm_lens.frames.TOKENS`."""

    @property
    def scores(self) -> pd.DataFrame:
        """A table like `arm_lens.frames.ATTRIBUTIONS`, of this head."""


def head_card_figure(
    attention: CardLike | pd.DataFrame,
    tokens: pd.DataFrame | None = None,
    scores: pd.DataFrame | None = None,
    *,
    setting: str | None = None,
    title: str = "",
    outcome: str = "probability",
    shown: int | None = None,
    top: int | None = None,
    lines: int | None = None,
) -> go.Figure:
    """One head: the tokens it attends to, the tokens its mean promotes and suppresses, its score for each criterion.

    Args:
        attention: a head card, which has everything else; or a table like `arm_lens.frames.ATTENTION`.
        tokens: a table like `arm_lens.frames.TOKENS`.
        scores: a table like `arm_lens.frames.ATTRIBUTIONS` of this head, and if known rank and heads; without it the section
            is left out.
        setting: which prompts are drawn, if there are several kinds: ``zero-shot`` or ``few-shot``; by default the first in
            the table. The figure says which.
        title: of the figure, literal; by default the card's name.
        outcome: whose scores are drawn; a measure without it is drawn by its first outcome.
        shown: prompts, at most, both verdicts in turn; by default 3, in one column of a paper 2.
        top: tokens promoted and suppressed, at most; by default 8, in one column of a paper 6.
        lines: lines of a prompt, at most: the last, and those with the most attention; by default 6, in one column of a
            paper 4.

    Raises:
        ValueError: naming the settings that the table has, if it lacks the given one.
    """
    if not isinstance(attention, pd.DataFrame):
        card = attention
        attention, tokens, scores, title = card.attention, card.tokens, card.scores, title or card.name
    if tokens is None:
        raise ValueError("a table of attention needs one of tokens too; a head card has both")
    attention, tokens = checked(attention, ATTENTION), checked(tokens, TOKENS)
    for row in attention[attention["weight"].isna()].to_dict("records"):
        raise ValueError(f"the table 'attention' lacks the weight of token {row['position']} of {row['example']!r}")
    for direction in set(tokens["direction"]) - set(DIRECTIONS):
        raise ValueError(f"the table 'tokens' has a direction {direction!r}, which is {' or '.join(DIRECTIONS)}")
    shown, top, lines = shown or (2 if narrow() else 3), top or (6 if narrow() else 8), lines or (4 if narrow() else 6)
    width = page_width() - 2 * SIDE
    strips = Strips.of(attention, shown, lines, width, setting)
    sides = [tokens[tokens["direction"] == direction] for direction in DIRECTIONS]
    ordered = zip(sides, (False, True), strict=True)
    bars = pd.concat([one.sort_values("effect", ascending=up, kind="stable").head(top) for one, up in ordered])
    forest = ScoreForest.of(scores, outcome) if scores is not None and len(scores) else None
    bar_width = min(520, width if forest is None or narrow() else round(0.36 * width))
    bar_height = HEADING + BAR * (len(bars) + 1) + 40
    forest_width = width if narrow() else width - bar_width - 24
    forest_height = forest.height(forest_width) if forest is not None else 0
    below = bar_height + forest_height + 12 * bool(forest_height) if narrow() else max(bar_height, forest_height)
    above = strips.height + 14
    sheet = Sheet.titled(title, above + below, top=40, bottom=4)
    strips.draw(sheet)
    _draw_bars(sheet, bars, bar_width, above)
    notes = ["Logits by the direct path only." if narrow() else "", strips.note]
    if forest is not None:
        left, down = (0, bar_height + 12) if narrow() else (width - forest_width, 0)
        forest.draw(sheet, left, above + down, forest_width)
        notes.append(forest.note)
    return caption(sheet.finished(), notes)


# -- what it attends to ------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Strips:
    """Prompts as lines of tokens: where each token stands, in characters and lines."""

    tokens: pd.DataFrame
    heads: list[tuple[str, int]]
    """The heading of each prompt, and its line."""
    gaps: list[int]
    """Lines before which others are left out."""
    count: int
    setting: str

    @classmethod
    def of(cls, attention: pd.DataFrame, shown: int, most: int, width: float | int, setting: str | None) -> Strips:
        """The first ``shown`` prompts of a setting, both verdicts in turn, on at most ``most`` lines each."""
        attention, setting = of_setting(attention, setting, "attention")
        wide = int(width / LETTER)
        parts, heads, gaps, line = [], [], [], 0
        for name in of_each_verdict(attention, shown):
            rows = attention[attention["example"] == name].sort_values("position", kind="stable", ignore_index=True)
            # Words' tokens begin with the space before them, unless all tokens are words.
            joined = bool(rows["token"].str.startswith(" ").any())
            begins = [not joined or token.startswith(" ") for token in rows["token"]]
            texts = [_visible(token.removeprefix(" ") or token, wide - 2) for token in rows["token"]]
            lines, columns = zip(*_flow(list(map(_cells, texts)), begins, wide - 2), strict=True)
            rows = rows.assign(text=texts, line=lines, column=columns)
            drawn = _weightiest(rows["line"], rows["weight"], most)
            inside = rows["line"].isin(drawn)
            head = f", right verdict: {rows['verdict'].iloc[0]}"
            if not inside.all():
                head += f"; {(~inside).sum()} tokens not shown get {rows.loc[~inside, 'weight'].sum():.2f}"
                rows["column"] += 2
            name, room = str(name), max(int(width / 6.4) - len(head), 8)
            heads.append(((name if len(name) <= room else name[: room - 1] + "…") + head, line))
            place = {row: line + 1 + index for index, row in enumerate(drawn)}
            gaps += [at for (row, at), before in zip(place.items(), [-1, *drawn], strict=False) if row - before > 1]
            parts.append(rows[inside].assign(line=rows["line"].map(place)))
            line += 1 + len(drawn)
        return cls(pd.concat(parts, ignore_index=True).astype({"line": int}), heads, gaps, line, setting)

    @property
    def height(self) -> int:
        """Pixels of the whole section."""
        return HEADING + LINE * self.count

    @property
    def note(self) -> str:
        """Sentences for the caption."""
        which = f"The prompts are {literal(self.setting)}." if self.setting and narrow() else ""
        return f"{which} {'Of long prompts the lines with the most attention are shown.' if self.gaps else ''}".strip()

    def draw(self, sheet: Sheet) -> None:
        """Draw the section at the top of the sheet."""
        axis, rows = sheet.add_axes(0, HEADING, sheet.width, LINE * self.count), self.tokens
        where = f" ({literal(self.setting)})" if self.setting and not narrow() else ""
        sheet.write(f"<b>Attention from the last token</b>{where}", 0, 22)
        for head, line in [*self.heads, *(("…", line) for line in self.gaps)]:
            sheet.write(literal(head), 0, HEADING + LINE * (line + 1) - 3, size=12, color=MUTED)
        top = float(rows["weight"].max()) or 1.0
        shares, widths = rows["weight"] / top, rows["text"].map(_cells) * LETTER
        left, middle = rows["column"] * LETTER, (rows["line"] + 0.5) * LINE
        for x, y, width, share in zip(left, middle, widths, shares, strict=True):
            if share >= 0.02:
                sheet.shapes.append({
                    "x0": x - 0.5, "x1": x + width + 0.5, "y0": y - 9, "y1": y + 9, "type": "rect", "xref": f"x{axis}",
                    "yref": f"y{axis}", "layer": "below", "line": {"width": 0},
                    "fillcolor": sample_colorscale(HEAT, [share])[0],
                })  # fmt: skip
        texts = [
            hover_text(example, f"token {position}: {literal(repr(token))}", f"weight {weight:.4f}")
            for example, position, token, weight in rows[["example", "position", "token", "weight"]].to_numpy()
        ]
        ink = ["#ffffff" if share > 0.6 else INK for share in shares]
        words = {"text": rows["text"].map(literal), "textfont": {"family": MONO, "size": 12, "color": ink}}
        marker = {"size": 10, "opacity": 0, "color": rows["weight"], "coloraxis": "coloraxis"}
        look = {"mode": "markers+text", "marker": marker, "cliponaxis": False, "name": "attention"}
        sheet.figure.add_trace(marks(left + widths / 2, middle, texts, **words, **look, **sheet.on(axis)))
        sheet.bare(axis, [0, sheet.width], [LINE * self.count, 0])
        sheet.weights(HEAT, top, yanchor="top", ypad=0, ticklen=0, ticklabelposition="outside")


def _visible(token: str, most: int) -> str:
    """A token on one line of at most ``most`` characters; spaces at its ends become visible."""
    inner = token.strip(" ")
    before = len(token) - len(token.lstrip(" "))
    text = "␣" * before + inner + "␣" * (len(token) - before - len(inner))
    return text if len(text) <= most else text[: most - 1] + "…"


def _cells(text: str) -> int:
    """Columns that a text takes in fixed-width type."""
    return sum(2 if unicodedata.east_asian_width(one) in "WF" else 1 for one in text) or 1


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


# -- what its mean writes ----------------------------------------------------------------------------------------------


def _draw_bars(sheet: Sheet, bars: pd.DataFrame, width: float | int, above: float | int) -> None:
    """Draw promoted tokens above suppressed ones, each with its number."""
    effects = bars["effect"].to_numpy(dtype=float)
    texts = [_visible(str(token), 16) for token in bars["token"]]
    gutter = max(LETTER * max(map(_cells, texts)) + 12, 40)
    room = width - gutter
    y = np.arange(len(bars)) + 0.8 * (bars["direction"] != "promoted").to_numpy()
    rows = y[-1] + 1
    axis = sheet.add_axes(gutter, above + HEADING, room, BAR * rows)
    sheet.write("<b>What its mean writes</b>" + ("" if narrow() else " (direct path only)"), 0, above + 22)
    numbers = [signed(one, digits=digits_for(largest(effects))) for one in effects]
    # A bar's number stands beyond its end; the axis is longer by as much.
    beyond = 6.8 * max(map(len, numbers)) + 16
    low, high = min(0.0, np.nanmin(effects)), max(0.0, np.nanmax(effects))
    per_pixel = ((high - low) or 1.0) / max(room - beyond * ((low < 0) + (high > 0)), 40)
    hover = [f"{literal(repr(token))}: logit {number}" for token, number in zip(bars["token"], numbers, strict=True)]
    sheet.figure.add_bar(
        x=effects, y=y, orientation="h", width=0.72, name="tokens", showlegend=False, hovertext=hover,
        marker={"color": [POSITIVE if one >= 0 else NEGATIVE for one in effects]}, hovertemplate=HOVER, text=numbers,
        textposition="outside", textfont={"size": 12, "color": INK}, cliponaxis=False, **sheet.on(axis),
    )  # fmt: skip
    sheet.x(axis).update(
        range=[low - beyond * per_pixel * (low < 0), high + beyond * per_pixel * (high > 0)],
        title={"text": "change of the logit", "standoff": 4}, tick0=0, dtick=tick_step(per_pixel * room, room, 48),
        showgrid=False, exponentformat="none", **ZERO_LINE,
    )  # fmt: skip
    sheet.y(axis).update(
        range=[rows - 0.5, -0.5], tickvals=y, ticktext=list(map(literal, texts)), showgrid=False,
        tickfont={"family": MONO, "size": 12}, ticks="", showline=False, ticklabelstandoff=4,
    )  # fmt: skip


# -- how it scores -----------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class ScoreForest:
    """Scores: a small panel per measure (each has its own unit), a line per criterion."""

    scores: pd.DataFrame
    measures: list[str]
    criteria: list[str]
    outcome: str
    left_out: list[str]

    @classmethod
    def of(cls, scores: pd.DataFrame, outcome: str) -> ScoreForest:
        """As many measures as there is room for, each with its rows of ``outcome`` or, without any, of its first one."""
        scores = checked(scores, OF_ONE_HEAD)
        measures, most = list(measure_styles(sorted(set(scores["measure"])))), 4 if narrow() else 6
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
        return 6.8 * min(max(map(len, self.criteria)), self.letters) + 10

    @property
    def row_height(self) -> int:
        """Pixels of a row of panels."""
        return NAME + ROW * len(self.criteria) + AXIS

    def columns(self, width: float | int) -> int:
        """Panels in a row."""
        return balanced_columns(len(self.measures), max(1, int((width - self.gutter) // (135 if narrow() else 150))))

    def height(self, width: float | int) -> int:
        """Pixels of the whole section."""
        return HEADING + -(-len(self.measures) // self.columns(width)) * self.row_height

    @property
    def note(self) -> str:
        """Sentences for the caption."""
        styles = measure_styles([*self.measures, *self.left_out])
        outcomes = self.scores.groupby("measure", sort=False)["outcome"].first()
        heads = self.scores["heads"].max() if "heads" in self.scores.columns else np.nan
        sentences = [
            "Scores with 95 % intervals, filled where they exclude 0.",
            "" if np.isnan(heads) else f"#: rank among {heads:.0f} heads.",
            *(
                f"{styles[str(one)].name} is of the outcome '{of}'."
                for one, of in outcomes.items()
                if of != self.outcome
            ),
            *trust_captions(self.scores),
            f"Not drawn: {', '.join(styles[one].name for one in self.left_out)}." if self.left_out else "",
        ]
        return " ".join(sentences)

    def draw(self, sheet: Sheet, left: float | int, above: float | int, width: float | int) -> None:
        """Draw the section with its upper left corner at ``left`` and ``above``."""
        columns = self.columns(width)
        panel = min((width - self.gutter - (columns - 1) * GAP) / columns, 260)
        what = outcome_name(self.outcome)
        sheet.write(f"<b>Scores</b>{'' if narrow() else ', ' + what}", left, above + 22)
        for index, (measure, style) in enumerate(measure_styles(self.measures).items()):
            row, column = divmod(index, columns)
            x = left + self.gutter + column * (panel + GAP)
            y = above + HEADING + row * self.row_height
            sheet.write(literal(style.name if len(style.name) * 6.6 <= panel else style.short), x, y + 20, size=12)
            axis = sheet.add_axes(x, y + NAME, panel, ROW * len(self.criteria))
            names = labels(self.criteria, width=self.letters, lines=1) if column == 0 else [""] * len(self.criteria)
            sheet.y(axis).update(rows_axis(names), ticks="", showgrid=False)
            self._panel(sheet, axis, self.scores[self.scores["measure"] == measure], panel)

    def _panel(self, sheet: Sheet, axis: int, own: pd.DataFrame, width: float | int) -> None:
        own = own.assign(y=[self.criteria.index(str(one)) for one in own["criterion"]])
        known = own[own["score"].notna()]
        filled = np.where(excludes(known), DARK, "#ffffff")
        marker = {"size": 8, "color": filled, "line": {"width": 1.5, "color": DARK}}
        look = {"marker": marker, "error_x": whiskers(known, "score", DARK, thickness=1.5, width=0), "name": "scores"}
        texts = [hover_text(row["criterion"], score_text(row)) for row in known.to_dict("records")]
        sheet.figure.add_trace(marks(known["score"], known["y"], texts, mode="markers", **look, **sheet.on(axis)))
        ends = known["ci_low"].fillna(known["score"]), known["ci_high"].fillna(known["score"])
        low, high = (min(0.0, float(ends[0].min())), max(0.0, float(ends[1].max()))) if len(known) else (0.0, 1.0)
        span = (high - low) or 1.0
        ranks = own[own["rank"].notna()] if "rank" in own.columns else own.iloc[:0].assign(rank=0.0)
        written = max((len(f"#{rank:.0f}") for rank in ranks["rank"]), default=0)
        room = (7.0 * written + 6) / width  # the rank stands at the right edge
        reach = (low - 0.08 * span, high + (0.06 + 1.14 * room / (1 - room)) * span)
        sheet.x(axis).update(range=reach, nticks=max(2, int(width / 36)), showgrid=False, tickangle=0, **ZERO_LINE)
        grey, right = {"size": 12, "color": MUTED}, {"x": 1, "xref": f"x{axis} domain", "xanchor": "right"}
        for row in ranks.itertuples():
            sheet.note(text=f"#{row.rank:.0f}", y=row.y, yref=f"y{axis}", font=grey, **right)
