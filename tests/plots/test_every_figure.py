"""Every figure at every theme, as a reader sees it: drawn in Chromium, and measured there.

To add a figure, add a line to `CASES` in synthetic_cases.py.
"""

from __future__ import annotations

import base64
import itertools
import typing

import numpy as np
import plotly.graph_objects as go
import pytest
from plots.measuring import Measured, measured, opened
from plots.synthetic_cases import CASES, PAGE_ONLY

from arm_lens import plots
from arm_lens.plots.export import pixels_per_inch
from arm_lens.plots.theme import COLUMN, DIVERGING, PAGE, SCREEN, themed

pytestmark = pytest.mark.slow

A_PAGE = 30
"""Figures that are drawn in one page of the browser, which has only so much time."""
THEMES = {theme.name: theme for theme in (SCREEN, COLUMN, PAGE)}
SHOWN = [(name, theme) for theme in THEMES for name in CASES if not (name in PAGE_ONLY and theme == COLUMN.name)]
every_figure = pytest.mark.parametrize("name, theme", SHOWN, ids=[f"{name} ({theme})" for name, theme in SHOWN])


@pytest.fixture(scope="module")
def figures() -> dict[str, go.Figure]:
    drawn = {}
    for name, theme in SHOWN:
        with themed(THEMES[theme]):
            drawn[f"{name} ({theme})"] = CASES[name]()
    return drawn


@pytest.fixture(scope="module")
def page(figures, tmp_path_factory, chromium) -> dict[str, Measured]:
    found: dict[str, Measured] = {}
    for start in range(0, len(SHOWN), A_PAGE):
        some = dict(itertools.islice(figures.items(), start, start + A_PAGE))
        found |= measured(chromium, some, tmp_path_factory.mktemp("figures"), images=True)
    return found


def test_every_figure_function_has_a_case():
    functions = {
        name
        for name in plots.__all__
        if callable(one := getattr(plots, name))
        and not isinstance(one, type)
        and typing.get_type_hints(one).get("return") is go.Figure
    }
    assert functions <= {case.split(":")[0] for case in CASES}
    assert len(functions) >= 12 and all(name in CASES for name in PAGE_ONLY)


@every_figure
def test_no_text_is_clipped_covered_or_too_small(name, theme, page):
    assert page[f"{name} ({theme})"].faults() == {}
    assert page[f"{name} ({theme})"].texts > 5


@every_figure
def test_it_is_drawn_to_png_at_its_size_and_is_not_blank(name, theme, page, figures):
    layout = figures[f"{name} ({theme})"].layout
    content = base64.b64decode(page[f"{name} ({theme})"].png)
    size = int.from_bytes(content[16:20], "big"), int.from_bytes(content[20:24], "big")
    assert content[:8] == b"\x89PNG\r\n\x1a\n" and size == (layout.width, layout.height)
    assert len(content) > 3000  # a blank image of this size is smaller


@every_figure
def test_it_fits_its_page_and_remembers_it(name, theme, figures):
    figure, made_for = figures[f"{name} ({theme})"], THEMES[theme]
    assert 0.25 * made_for.page_width < figure.layout.width <= made_for.page_width
    assert figure.layout.meta["theme"] == theme
    assert pixels_per_inch(figure) == made_for.pixels_per_inch


@pytest.mark.parametrize("name", sorted(PAGE_ONLY))
def test_what_is_too_large_for_a_column_says_what_to_do(name):
    with themed(COLUMN), pytest.raises(ValueError, match=r"inches high.*themed\(PAGE\)"):
        CASES[name]()


def look(trace: go.Scatter) -> tuple[object, ...]:
    """What is left of a line or a filled area in greyscale."""
    mode = trace.mode or "lines"
    symbol = trace.marker.symbol if "markers" in mode else None
    filled = isinstance(trace.marker.color, str) and trace.marker.color.lower() != "#ffffff" and "markers" in mode
    dash = (
        (trace.line.dash or "solid", trace.fill, trace.line.width if trace.fill else None) if "lines" in mode else None
    )
    return (mode, symbol if isinstance(symbol, str | None) else tuple(symbol), filled, dash)


@pytest.mark.parametrize("name", CASES)
def test_entries_of_a_legend_differ_without_their_colours(name, figures):
    figure = figures[f"{name} ({PAGE.name})"]
    listed = [trace for trace in figure.data if trace.type == "scatter" and trace.showlegend is not False]
    if figure.layout.showlegend is False:
        return
    for one, two in itertools.combinations(listed, 2):
        assert one.name == two.name or look(one) != look(two), (one.name, two.name)


def printed(figure: go.Figure, trace: go.Heatmap) -> bool:
    """Whether a map's cells carry text or a symbol for negative ones: their own, or that of a trace over the same axes."""
    own = trace.texttemplate or ""
    over = [
        one
        for one in figure.data
        if one.type == "scatter" and ("text" in (one.mode or "") or one.marker.symbol in ("line-ew", "triangle-down"))
        and (one.xaxis or "x", one.yaxis or "y") == (trace.xaxis or "x", trace.yaxis or "y")
    ]  # fmt: skip
    return bool(own or over)


@pytest.mark.parametrize("name", CASES)
def test_a_diverging_map_tells_its_sign_in_greyscale_too(name, figures):
    figure = figures[f"{name} ({PAGE.name})"]
    ends = {DIVERGING[0][1], DIVERGING[-1][1]}
    for trace in figure.data:
        if trace.type != "heatmap":
            continue
        scale = trace.colorscale or figure.layout[trace.coloraxis].colorscale or ((0, ""),)
        signed = {scale[0][1], scale[-1][1]} == ends
        if signed and np.isfinite(np.array(trace.z, dtype=float)).any():
            assert printed(figure, trace), trace.name


def test_the_measuring_sees_what_is_wrong(tmp_path, chromium):
    """Else the tests above would be worth nothing."""
    good = go.Figure(layout={"width": 300, "height": 200, "margin": {"l": 60, "r": 20, "t": 40, "b": 50}})
    good.add_scatter(x=[0, 1], y=[0, 1])
    long = go.Figure(good).update_layout(xaxis_title="words " * 20)
    over = go.Figure(good)
    for shift in (0, 5):
        over.add_annotation(text="word", x=0.5, y=0.5, xshift=shift, showarrow=False)
    crossing = go.Figure(good)
    for angle in (-30, 30):
        crossing.add_annotation(text="slanted words", x=0.5, y=0.5, textangle=angle, showarrow=False)
    parallel = go.Figure(good)
    for shift in (-20, 20):
        parallel.add_annotation(text="slanted words", x=0.5, y=0.5, xshift=shift, textangle=-45, showarrow=False)
    small = go.Figure(good).add_annotation(
        text='<span style="font-size:9px">tiny</span>', x=0.5, y=0.5, showarrow=False
    )
    cut = go.Figure(good).update_layout(showlegend=True, legend={"y": 1.3, "entrywidth": 20, "orientation": "h"})
    cut.update_traces(name="a name that is much too long")
    hiding = go.Figure(good).update_layout(showlegend=True, legend={"x": 0.1, "y": 0.9})
    cases = {
        "good": (good, set()), "parallel": (parallel, set()), "long": (long, {"outside"}), "over": (over, {"overlapping"}),
        "crossing": (crossing, {"overlapping"}), "small": (small, {"smallest font"}), "hiding": (hiding, {"covered"}),
        "cut": (cut, {"clipped"}),
    }  # fmt: skip
    found = measured(chromium, {name: figure for name, (figure, _) in cases.items()}, tmp_path)
    assert {name: set(one.faults()) for name, one in found.items()} == {
        name: wrong for name, (_, wrong) in cases.items()
    }


def test_interactive_pages_open_without_a_console_message(figures, tmp_path, chromium):
    for name in ("selected_heads (screen)", "accuracy_by_judge (screen)", "selection_steps (screen)"):
        dom = opened(chromium, plots.save_figure(figures[name], tmp_path / "figure.html"))
        assert dom.count('class="main-svg"') >= 1 and "plotly-graph-div" in dom


def test_a_message_on_the_console_is_noticed(tmp_path, chromium):
    page = tmp_path / "wrong.html"
    page.write_text("<html><script>nothing.of(this)</script></html>")
    with pytest.raises(AssertionError, match="nothing is not defined"):
        opened(chromium, page)
