"""Images of a prompt, each patch in a colour as strong as the attention it gets from the last token."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol, runtime_checkable

import numpy as np
import pandas as pd
import plotly.graph_objects as go

from arm_lens.display import of_each_verdict
from arm_lens.frames import PATCHES, checked
from arm_lens.plots.marks import HOVER
from arm_lens.plots.notation import caption, hover_text
from arm_lens.plots.sheet import SIDE, Sheet, of_setting
from arm_lens.plots.theme import MUTED, literal, narrow, page_width

HEAT = [[0.0, "rgba(200,30,30,0)"], [1.0, "rgba(200,30,30,0.85)"]]
"""From no attention to the most: the image shines through."""
GAP, TEXT = 16, 40
"""Pixels between images, and of the two lines below an image."""


@runtime_checkable
class WithPatches(Protocol):
    """What a head card has of images (`arm_lens.attribution.HeadCard`)."""

    @property
    def name(self) -> str:
        """Its name in titles."""

    @property
    def patches(self) -> pd.DataFrame:
        """A table like `arm_lens.frames.PATCHES`."""

    @property
    def pictures(self) -> Mapping[str, str]:
        """The images by digest, as ``data:`` URIs."""


def image_attention_figure(
    patches: WithPatches | pd.DataFrame,
    pictures: Mapping[str, str] | None = None,
    *,
    setting: str | None = None,
    title: str = "",
    shown: int | None = None,
) -> go.Figure:
    """Images, and which of their patches a head attends to from the last token of the prompt.

    Args:
        patches: a head card, which has everything else; or a table like `arm_lens.frames.PATCHES`.
        pictures: the images by their digests, as ``data:`` URIs or addresses.
        setting: which prompts are drawn, if there are several kinds; by default the first in the table.
        title: of the figure, literal; by default the card's name.
        shown: prompts, at most, both verdicts in turn; by default 4, in one column of a paper 2.

    Raises:
        ValueError: if there is no image, its picture is missing, or there is no such setting.
    """
    if not isinstance(patches, pd.DataFrame):
        card = patches
        patches, pictures, title = card.patches, card.pictures, title or card.name
    rows, _ = of_setting(checked(patches, PATCHES), setting, "patches")
    missing = [digest for digest in rows["image"].unique() if digest not in (pictures or {})]
    if missing:
        raise ValueError(f"there is no picture of the image {missing[0]!r}")
    assert pictures is not None
    chosen = of_each_verdict(rows, shown or (2 if narrow() else 4))
    drawn = [one for _, one in rows[rows["example"].isin(chosen)].groupby(["example", "picture"], sort=False)]
    across = min(len(drawn), 2 if narrow() else 4)
    side = min((page_width() - 2 * SIDE - GAP * (across - 1)) / across, 220)
    lines = [drawn[start : start + across] for start in range(0, len(drawn), across)]
    heights = [max(min(side / _aspect(one), 1.5 * side) for one in line) + TEXT for line in lines]
    sheet = Sheet.titled(title, sum(heights) + 12, top=44, bottom=18)
    top = float(max(one["weight"].max() for one in drawn)) or 1.0
    for number, line in enumerate(lines):
        for place, one in enumerate(line):
            _draw(sheet, one, pictures, place * (side + GAP), 4 + sum(heights[:number]), side)
    sheet.weights(HEAT, top, yanchor="bottom", ypad=2, outlinewidth=1, outlinecolor="#cccccc")
    return caption(
        sheet.finished(), ["How much the last token attends to each patch; the share is that of all of an image."]
    )


def _draw(
    sheet: Sheet,
    rows: pd.DataFrame,
    pictures: Mapping[str, str],
    left: float | int,
    above: float | int,
    side: float | int,
) -> None:
    """Draw an image and its patches, with its prompt and share below."""
    high = min(side / _aspect(rows), 1.5 * side)
    wide = high * _aspect(rows)
    axis = sheet.add_axes(left, above, wide, high)
    sheet.figure.add_layout_image(
        source=pictures[str(rows["image"].iloc[0])], x=0, y=0, sizex=1, sizey=1, sizing="stretch", layer="below",
        xref=f"x{axis}", yref=f"y{axis}",
    )  # fmt: skip
    name = f"{rows['example'].iloc[0]}, image {rows['picture'].iloc[0]}"
    grid = rows.pivot(index="row", columns="column", values="weight")
    n_rows, n_columns = int(rows["row"].max()) + 1, int(rows["column"].max()) + 1
    every = grid.reindex(index=range(n_rows), columns=range(n_columns))
    for row, column in np.argwhere(every.isna().to_numpy()):
        raise ValueError(f"the table 'patches' lacks the weight of row {row}, column {column} of {name}")
    across = rows.drop_duplicates("column").sort_values("column")
    down = rows.drop_duplicates("row").sort_values("row")
    x, y = [*across["left"], across["right"].iloc[-1]], [*down["top"], down["bottom"].iloc[-1]]
    sheet.figure.add_heatmap(
        x=x, y=y, z=grid.to_numpy(dtype=float), coloraxis="coloraxis", hovertemplate=HOVER, name="attention",
        hovertext=[
            [hover_text(name, f"row {row}, column {column}", f"weight {weight:.4f}") for column, weight in enumerate(line)]
            for row, line in enumerate(grid.to_numpy(dtype=float))
        ],
        **sheet.on(axis),
    )  # fmt: skip
    sheet.bare(axis, [0, 1], [1, 0])
    most, number = max(int(side / 7), 12), f", image {rows['picture'].iloc[0]}"
    prompt = str(rows["example"].iloc[0])
    prompt = prompt if len(prompt + number) <= most else prompt[: most - len(number) - 1] + "…"
    sheet.write(literal(prompt + number), left, above + high + 18, size=12)
    share = f"share {rows['weight'].sum():.2f}; right verdict: {rows['verdict'].iloc[0]}"
    sheet.write(literal(share), left, above + high + 34, size=12, color=MUTED)


def _aspect(rows: pd.DataFrame) -> float:
    """Width of an image by its height."""
    return float(rows["width"].iloc[0] / rows["height"].iloc[0])
