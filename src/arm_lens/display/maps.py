"""Maps of heads as inline SVG: layers upwards from layer 0 and heads to the right, as in the figures.

Shades are opacities: weak values fade into the page, light or dark. A tooltip on each cell has its value.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np
from jaxtyping import Bool, Float, Int
from torch import Tensor

from arm_lens.display.notebook import escaped
from arm_lens.display.words import as_array, head_name, number

POSITIVE = "#2f7fb5"
NEGATIVE = "#c46a1b"
"""The two hues of the figures' diverging scale, at a strength that contrasts equally with white and with black."""
LEVELS = 20
"""Steps of shade."""
MOST_CELLS = 5500
"""The most cells that are drawn; each takes about 60 bytes in every saved notebook."""
MOST_FRAMES = 400
"""The most chosen heads that are framed one by one."""


def set_map(mask: Bool[Tensor, "layer head"]) -> str:
    """The heads of a set as filled cells, with their names as tooltips."""
    cells = {(layer, head): (head_name(layer, head), POSITIVE, LEVELS) for layer, head in mask.nonzero().tolist()}
    n_layers, n_heads = mask.shape
    return _svg(n_layers, n_heads, cells, label=f"{len(cells)} of {n_layers * n_heads} heads")


def score_map(values: Float[Tensor, "layer head"], *, chosen: Bool[Tensor, "layer head"] | None = None) -> str:
    """A shade per head, with its value as a tooltip.

    With values below 0 the scale has two hues and is centred at 0; without, one hue from the lowest to the highest. A
    head that was not measured is a stroke.

    Args:
        values: one per head; NaN if it was not measured.
        chosen: heads to outline.
    """
    grid = as_array(values)
    known = grid[np.isfinite(grid)]
    signed = bool((known < 0).any())
    top = float(np.abs(known).max() if signed else known.max(initial=0.0))
    bottom = 0.0 if signed else float(known.min(initial=top))
    if 0 <= bottom < top / 1000:
        bottom = 0.0  # "0 to 0.99" says the same as "3.8e-20 to 0.99"
    level = _levels(np.abs(grid) if signed else grid, bottom, top)
    drawn = np.argsort(-np.nan_to_num(np.abs(grid), nan=-1.0).ravel(), kind="stable")[:MOST_CELLS]
    cells = {}
    for layer, head in (divmod(place, grid.shape[1]) for place in drawn.tolist()):
        value = float(grid[layer, head])
        hue = NEGATIVE if value < 0 else POSITIVE
        cells[layer, head] = (f"{head_name(layer, head)} {number(value)}", hue, int(level[layer, head]))
    outlined = [] if chosen is None else chosen.tolist()
    n_layers, n_heads = grid.shape
    absent = np.isnan(grid)
    notes = {
        "outlined: chosen": np.any(outlined),
        "a stroke: not measured": absent.any(),
        f"without the {grid.size - len(cells)} smallest": len(cells) < grid.size,
    }
    svg = _svg(n_layers, n_heads, cells, outlined=outlined, absent=absent, label="a score per head")
    return svg + _key(known, signed, bottom, top, [note for note, applies in notes.items() if applies])


def _key(known: Float[np.ndarray, " measured"], signed: bool, bottom: float, top: float, notes: list[str]) -> str:
    """What shades, hues and outlines mean."""

    def patch(hue: str, opacity: float = 1.0) -> str:
        return f'<span style="color:{hue};opacity:{opacity:g}">■</span> '

    if not len(known):
        parts = []
    elif signed:
        parts = [f"{patch(NEGATIVE)}below 0, down to {number(float(known.min()))}"]
        parts += [f"{patch(POSITIVE)}above 0, up to {number(float(known.max()))}"] if (known > 0).any() else []
    elif bottom == top:
        parts = [f"all {number(top)}"]
    else:
        parts = [f"{patch(POSITIVE, 0.3)}{number(bottom)} to {patch(POSITIVE)}{number(top)}"]
    return f'<div style="font-size:.85em;opacity:.85">{"; ".join([*parts, *notes])}</div>'


def _levels(size: Float[np.ndarray, "layer head"], low: float, high: float) -> Int[np.ndarray, "layer head"]:
    """0 to `LEVELS`; what is not the lowest possible is at least faintly visible."""
    reach = (size - low) / (high - low) if high > low else np.where(size == 0, 0.0, 0.5)
    reach = np.where(np.isnan(size), 0.0, np.clip(reach, 0.0, 1.0))
    return np.where(reach > 0, np.maximum(np.rint(reach * LEVELS), 1), 0).astype(int)


def _svg(
    n_layers: int,
    n_heads: int,
    cells: Mapping[tuple[int, int], tuple[str, str, int]],
    *,
    outlined: list[list[bool]] | None = None,
    absent: Bool[np.ndarray, "layer head"] | None = None,
    label: str,
) -> str:
    """A map of heads: tooltip, hue and level of the shade of each cell, heads to frame, heads to strike, and a label."""
    side = max(min(16.0, 480 / n_heads, 400 / n_layers), 4.0)
    left, top, bottom = 30.0, 16.0, 28.0
    # Cells have the side 1; a line of that width along the middle of the cell takes fewer bytes than a rectangle.
    by_shade: dict[tuple[str, int], list[str]] = {}
    for (layer, head), (text, hue, level) in sorted(cells.items()):
        cell = f'<path d="M{head} {n_layers - 1 - layer}h.9"><title>{escaped(text)}</title></path>'
        by_shade.setdefault((hue, level), []).append(cell)
    parts = [
        f'<g stroke="{hue}" stroke-opacity="{level / LEVELS:g}">{"".join(inside)}</g>'
        for (hue, level), inside in sorted(by_shade.items())
    ]
    ground = "".join(f"M0 {row}h{n_heads}" for row in range(n_layers))
    ground = f'<path d="{ground}" stroke="currentColor" stroke-opacity=".09" stroke-dasharray=".9 .1"/>'
    minus = [place for place, (_, hue, level) in cells.items() if hue == NEGATIVE and level >= LEVELS // 4]
    marks = ""
    if side >= 8:  # in greyscale the hues are alike
        marks += "".join(f"M{head + 0.25:g} {n_layers - 1 - layer}h.4" for layer, head in minus)
    if absent is not None:
        marks += "".join(f"M{head + 0.2:g} {n_layers - 0.75 - layer:g}l.5-.5" for layer, head in np.argwhere(absent))
    frames = _frames(outlined or [], n_layers)
    thin = 'stroke="currentColor" pointer-events="none" stroke-width='
    parts += [f'<path d="{marks}" {thin}".1"/>'] if marks else []
    parts += [f'<path d="{frames}" {thin}"{max(0.14, 1.2 / side):.2g}"/>'] if frames else []
    map_ = f'<g transform="translate({left:g} {top + side * 0.45:g}) scale({side:.4g})" fill="none" stroke-width=".9">'
    width, height = left + side * max(n_heads, 1) + 8, top + side * n_layers + bottom
    texts = [f'<text x="{left - 6:g}" y="10" text-anchor="end">layer</text>']
    for layer in spaced(n_layers, side, 12):
        y = top + side * (n_layers - 1 - layer + 0.45) + 3.5
        texts.append(f'<text x="{left - 6:g}" y="{y:.4g}" text-anchor="end">{layer}</text>')
    for head in spaced(n_heads, side, 16):
        x = left + side * (head + 0.45)
        texts.append(f'<text x="{x:.4g}" y="{height - bottom + 11:.4g}" text-anchor="middle">{head}</text>')
    texts.append(f'<text x="{left:g}" y="{height - 4:.4g}">head</text>')
    return (
        f'<svg width="{width:.4g}" height="{height:.4g}" viewBox="0 0 {width:.4g} {height:.4g}" role="img" '
        f'aria-label="{escaped(label)}" fill="currentColor" font-size="10" font-family="inherit" '
        f'style="display:block;max-width:100%;height:auto;margin:4px 0">'
        f"{map_}{ground}{''.join(parts)}</g>{''.join(texts)}</svg>"
    )


def _frames(outlined: list[list[bool]], n_layers: int) -> str:
    """A frame around each chosen head; if there are many, one around all neighbours, to save space."""
    path, many = "", sum(map(sum, outlined)) > MOST_FRAMES
    for layer, row in enumerate(outlined):
        edges = np.flatnonzero(np.diff([0, *map(int, row), 0]))
        for start, end in zip(edges[::2].tolist(), edges[1::2].tolist(), strict=True):
            for head in [start] if many else range(start, end):
                length = f"{end - start - 0.1:g}".removeprefix("0") if many else ".9"
                path += f"M{head} {n_layers - 1.45 - layer:g}h{length}v.9h-{length}z"
    return path


def spaced(size: int, side: float, apart: int) -> range:
    """Every 1st, 2nd, 4th, 8th... index, so that labels stand at least ``apart`` pixels apart."""
    return range(0, size, 2 ** max(0, math.ceil(math.log2(apart / side))))
