"""A head card as a figure: what one head attends to, what its mean writes, and how it scores.

Three sections, each from a table of a head card (`arm_lens.attribution.head_card`): prompts whose tokens have a background
as dark as the attention they get; the tokens that the mean promotes and suppresses by the direct path; and, measure by
measure (each with its own axis, as their units differ), the score for every criterion with its interval and rank.
"""

from __future__ import annotations

from typing import Protocol, runtime_checkable

import numpy as np
import pandas as pd
import plotly.graph_objects as go

from arm_lens.frames import ATTENTION, TOKENS, checked
from arm_lens.plots.attention_strips import Strips
from arm_lens.plots.notation import HOVER, caption, digits_for, largest, signed
from arm_lens.plots.score_forest import ScoreForest
from arm_lens.plots.sheet import HEADING, LETTER, MONO, ZERO_LINE, Sheet, cells, visible
from arm_lens.plots.theme import INK, base_layout, label, literal, narrow, page_width

BAR = 19
SIDE = 14
"""Pixels free at both edges."""
POSITIVE, NEGATIVE = "#2f7fb5", "#c46a1b"


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
    checked(attention, ATTENTION)
    checked(tokens, TOKENS)
    shown, top, lines = shown or (2 if narrow() else 3), top or (6 if narrow() else 8), lines or (4 if narrow() else 6)
    strips = Strips.of(attention, shown, lines, page_width() - 2 * SIDE, setting)
    bars = pd.concat([tokens[tokens["direction"] == direction].head(top) for direction in ("promoted", "suppressed")])
    forest = ScoreForest.of(scores, outcome) if scores is not None and len(scores) else None
    width = page_width() - 2 * SIDE
    bar_width = min(520, width if forest is None or narrow() else round(0.36 * width))
    bar_height = HEADING + BAR * (len(bars) + 1) + 40
    forest_width = width if narrow() else width - bar_width - 24
    forest_height = forest.height(forest_width) if forest is not None else 0
    below = bar_height + forest_height + 12 * bool(forest_height) if narrow() else max(bar_height, forest_height)
    height = strips.height + 14 + below
    sheet = Sheet(width, height)
    sheet.figure.update_layout(
        base_layout(width=page_width(), height=height + 44, margin={"l": SIDE, "r": SIDE, "t": 40, "b": 4})
    )
    sheet.write(f"<b>{label(title, width=int(width / 9), lines=1)}</b>", 0, -10, size=15)
    strips.draw(sheet)
    _draw_bars(sheet, bars, bar_width, strips.height + 14)
    notes = [strips.note]
    if forest is not None:
        left, above = (0, strips.height + 26 + bar_height) if narrow() else (width - forest_width, strips.height + 14)
        forest.draw(sheet, left, above, forest_width)
        notes.append(forest.note)
    figure = sheet.finished()
    return caption(figure, ["Logits by the direct path only." if narrow() else "", *notes])


def _draw_bars(sheet: Sheet, bars: pd.DataFrame, width: float | int, above: float | int) -> None:
    """Draw promoted tokens above suppressed ones, each with its number."""
    effects = bars["effect"].to_numpy(dtype=float)
    texts = [visible(str(token), 16) for token in bars["token"]]
    gutter = max(LETTER * max(map(cells, texts)) + 12, 40)
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
    sheet.figure.add_bar(
        x=effects,
        y=y,
        orientation="h",
        width=0.72,
        marker={"color": [POSITIVE if one >= 0 else NEGATIVE for one in effects]},
        text=numbers,
        textposition="outside",
        textfont={"size": 12, "color": INK},
        cliponaxis=False,
        hovertext=[
            f"{literal(repr(token))}: logit {number}" for token, number in zip(bars["token"], numbers, strict=True)
        ],
        hovertemplate=HOVER,
        showlegend=False,
        name="tokens",
        **sheet.on(axis),
    )
    sheet.x(axis).update(
        range=[low - beyond * per_pixel * (low < 0), high + beyond * per_pixel * (high > 0)],
        title={"text": "change of the logit", "standoff": 4}, nticks=max(3, int(room / 60)), showgrid=False,
        exponentformat="none", **ZERO_LINE,
    )  # fmt: skip
    sheet.y(axis).update(
        range=[rows - 0.5, -0.5], tickvals=y, ticktext=[literal(text) for text in texts], showgrid=False,
        tickfont={"family": MONO, "size": 12}, ticks="", showline=False, ticklabelstandoff=4,
    )  # fmt: skip
