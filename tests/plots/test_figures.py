"""Figures say what their tables say."""

from __future__ import annotations

import re
import subprocess
import sys
import zlib
from xml.etree import ElementTree

import numpy as np
import pandas as pd
import plotly.graph_objects as go
import plotly.io
import pytest
from plots.synthetic_results import make_heads, make_history, make_items, make_rows, make_summary

from arm_lens import plots
from arm_lens.plots import export
from arm_lens.plots.panels import thinned
from arm_lens.plots.rewards import roc_curves
from arm_lens.plots.theme import COLUMN, PAGE, SCREEN, label, literal, page_width, signs, themed
from arm_lens.registry import JUDGES

CRITERIA = ("safe", "polite", "list")
ITEMS = make_items(CRITERIA, n=40, texts=False)
ROWS = make_rows(ITEMS)
SUMMARY = make_summary(ROWS)
HEADS = make_heads(CRITERIA, n_layers=3, n_heads=4)
HISTORY = make_history(CRITERIA, steps=12)
FIGURES = {
    "selected": (plots.selected_heads, HEADS),
    "probabilities": (plots.selection_probabilities, HEADS),
    "curves": (plots.training_curves, HISTORY),
    "rewards": (plots.reward_histograms, ITEMS),
    "roc": (roc_curves, ITEMS),
}
every_figure = pytest.mark.parametrize("make, frame", FIGURES.values(), ids=FIGURES)


def named(frame: pd.DataFrame) -> str:
    """The column with the names of the criteria."""
    return "criterion" if "criterion" in frame else "subset"


def titles(figure: go.Figure) -> list[str]:
    return [note.text for note in figure.layout.annotations if note.text.startswith("<b>")]


@every_figure
def test_an_empty_table_is_refused(make, frame):
    with pytest.raises(ValueError, match="is empty"):
        make(frame.iloc[:0])


@every_figure
def test_the_missing_column_is_named(make, frame):
    with pytest.raises(ValueError, match="lacks the column 'seed'"):
        make(frame.drop(columns="seed"))


@every_figure
def test_the_table_is_left_as_it_was(make, frame):
    before = frame.copy()
    make(frame)
    pd.testing.assert_frame_equal(frame, before)


@every_figure
def test_one_criterion_and_one_seed_are_enough(make, frame):
    figure = make(frame[(frame[named(frame)] == "polite") & (frame["seed"] == 1)])
    assert figure.data and figure.layout.width and figure.layout.height


@pytest.mark.slow
def test_the_default_look_of_other_figures_stays():
    script = "import plotly.io as p; b = p.templates.default, len(p.templates)\nimport arm_lens.plots\n"
    script += "assert b == (p.templates.default, len(p.templates))"
    subprocess.run([sys.executable, "-c", script], check=True)


def test_judges_from_elsewhere_come_after_the_known_ones():
    styles = plots.judge_styles(["gauge", "arm_reinforce", "zero_shot", "ruler"], {"gauge": "A gauge"})
    assert [style.label for style in styles.values()][2:] == ["A gauge", "ruler"]
    assert styles["gauge"].symbol != styles["ruler"].symbol


def test_large_symbols_and_their_lines_are_the_summary():
    figure = plots.accuracy_by_subset(SUMMARY, rows=ROWS)
    for judge, style in plots.judge_styles(SUMMARY["judge"]).items():
        trace = next(trace for trace in figure.data if trace.name == style.label)
        assert (trace.marker.color, trace.marker.symbol) == (style.color, style.symbol)
        own = SUMMARY[SUMMARY["judge"] == judge].set_index("subset").loc[list(CRITERIA)]
        x = np.array(trace.x)
        np.testing.assert_allclose(x, own["accuracy"])
        np.testing.assert_allclose(x - np.array(trace.error_x.arrayminus), own["ci_low"])
        np.testing.assert_allclose(x + np.array(trace.error_x.array), own["ci_high"])
        assert [round(y) for y in trace.y] == [0, 1, 2]


def test_small_dots_are_the_rows():
    figure = plots.accuracy_by_subset(SUMMARY, rows=ROWS)
    dots = [x for trace in figure.data if trace.name.endswith(", repetitions") for x in trace.x]
    assert sorted(dots) == sorted(ROWS["accuracy"])
    assert len(plots.accuracy_by_subset(SUMMARY).data) == len(figure.data) / 2


def test_no_mark_of_the_accuracy_figure_is_outside_the_axes():
    wide = SUMMARY.assign(ci_low=SUMMARY["ci_low"] - 0.3)
    low, high = plots.accuracy_by_subset(wide).layout.xaxis.range
    assert low < wide["ci_low"].min() and high >= 1
    low, _ = plots.accuracy_by_subset(SUMMARY, rows=ROWS.assign(accuracy=0.05)).layout.xaxis.range
    assert low < 0.05


def test_several_rows_of_a_judge_and_a_subset_are_refused():
    twice = pd.concat([SUMMARY, SUMMARY.assign(n_examples=1)])
    with pytest.raises(ValueError, match=r"several rows of benchmark 'criteria'.*choose n_examples"):
        plots.accuracy_by_subset(twice)


def test_chance_is_marked_at_one_half():
    lines = [shape for shape in plots.accuracy_by_subset(SUMMARY).layout.shapes if shape.type == "line"]
    assert [(line.x0, line.x1) for line in lines] == [(0.5, 0.5)]


def test_names_can_be_replaced():
    figure = plots.accuracy_by_subset(SUMMARY, names={"few_shot": "Few-shot (8 in prompt)"})
    assert "Few-shot (8 in prompt)" in {trace.name for trace in figure.data}


@pytest.mark.parametrize(
    "make, column", [(plots.selected_heads, "selected"), (plots.selection_probabilities, "probability")]
)
def test_a_cell_is_the_mean_over_seeds(make, column):
    shuffled = HEADS.sample(frac=1, random_state=0).sort_values("criterion", key=lambda c: c.map(CRITERIA.index))
    figure = make(shuffled)
    assert [trace.name for trace in figure.data] == list(CRITERIA)
    for trace in figure.data:
        expected = np.zeros((3, 4))
        for row in HEADS[HEADS["criterion"] == trace.name].to_dict("records"):
            expected[row["layer"], row["head"]] += float(row[column]) / 3
        np.testing.assert_allclose(trace.z, expected)
        assert trace.coloraxis == "coloraxis"
    assert (figure.layout.coloraxis.cmin, figure.layout.coloraxis.cmax) == (0, 1)


def test_layer_zero_is_at_the_bottom_and_hover_tells_every_seed():
    figure = plots.selected_heads(HEADS)
    assert figure.layout.yaxis.range[0] < 0 < figure.layout.yaxis.range[1]
    one = HEADS[(HEADS["criterion"] == "polite") & (HEADS["layer"] == 2) & (HEADS["head"] == 3)]
    text = figure.data[1].hovertext[2][3]
    assert "polite" in text and "layer 2, head 3" in text
    for row in one.to_dict("records"):
        assert f"seed {row['seed']}: probability {row['probability']:.3f}" + ", selected" * row["selected"] in text


def test_a_table_that_lacks_a_head_is_refused():
    with pytest.raises(
        ValueError, match=r"has 11 rows for safe, seed 0, and the largest .* 12 heads: give a row for every"
    ):
        plots.selected_heads(HEADS[~((HEADS["layer"] == 1) & (HEADS["head"] == 2))])


def test_titles_count_the_selected_heads():
    heads = HEADS.assign(selected=(HEADS["layer"] == 0) & (HEADS["head"] < 2 + HEADS["seed"].clip(upper=1)))
    assert all("2 to 3 of 12 heads" in title for title in titles(plots.selected_heads(heads)))


def test_layer_labels_of_a_large_model_keep_apart():
    figure = plots.selected_heads(make_heads(CRITERIA, seeds=(0,), n_layers=32, n_heads=32))
    ticks = figure.layout.yaxis.tickvals
    low, high = figure.layout.yaxis.domain
    inner = figure.layout.height - figure.layout.margin.t - figure.layout.margin.b
    assert (high - low) * inner / 32 * (ticks[1] - ticks[0]) >= 16


@pytest.mark.parametrize("value", ["reward", "expected_heads", "entropy"])
def test_a_curve_is_the_mean_and_its_band_the_extremes(value):
    figure = plots.training_curves(HISTORY, value=value)
    bands = [trace for trace in figure.data if trace.fill == "toself"]
    lines = [trace for trace in figure.data if trace.fill is None]
    assert len(bands) == len(lines) == len(CRITERIA)
    for criterion, band, line in zip(CRITERIA, bands, lines, strict=True):
        table = HISTORY[HISTORY["criterion"] == criterion].pivot(index="step", columns="seed", values=value).to_numpy()
        np.testing.assert_allclose(line.y, table.mean(axis=1))
        np.testing.assert_allclose(band.y, [*table.max(axis=1), *table.min(axis=1)[::-1]])


def test_a_search_that_has_ended_stays_in_the_mean_as_it_ended():
    rows = [
        ("a", seed, step, value)
        for seed, values in ((0, (-4.0, -3.0, -2.0)), (1, (-1.0,)))
        for step, value in enumerate(values)
    ]
    history = pd.DataFrame(rows, columns=["criterion", "seed", "step", "reward"])
    figure = plots.training_curves(history)
    line = next(trace for trace in figure.data if trace.fill is None)
    assert list(line.y) == [-2.5, -2.0, -1.5]
    said = "A search that has ended stays as it ended."
    assert any(said in note.text for note in figure.layout.annotations)
    whole = plots.training_curves(history[history["seed"] == 0])
    assert not any(said in note.text for note in whole.layout.annotations)


def test_an_unknown_curve_is_refused():
    with pytest.raises((ValueError, TypeError), match="'loss'"):  # a TypeError from beartype, which tests switch on
        plots.training_curves(HISTORY, value="loss")


def count_pairs(items: pd.DataFrame) -> float:
    """AUC by looking at every pair of every seed."""
    areas = []
    for seed in items["seed"].unique():
        one = items[items["seed"] == seed]
        above, below = one["reward"][one["label"]], one["reward"][~one["label"]]
        won = [1.0 if a > b else 0.5 if a == b else 0.0 for a in above for b in below]
        areas.append(sum(won) / len(won))
    return sum(areas) / len(areas)


def test_the_auc_in_the_title_counts_pairs_within_seeds():
    items = ITEMS.assign(reward=(0.3 * ITEMS["seed"] + ITEMS["reward"] / 3).round(2))  # with ties, and seeds far apart
    for criterion, title in zip(CRITERIA, titles(plots.reward_histograms(items)), strict=True):
        chosen = items[(items["subset"] == criterion) & (items["judge"] == "arm_reinforce")]
        assert float(re.search(r"AUC ([\d.]+)", title)[1]) == pytest.approx(count_pairs(chosen), abs=5e-4)
        assert "n = 40 × 3 fits" in title


def test_the_auc_of_one_label_is_undefined():
    assert all("AUC undefined" in title for title in titles(plots.reward_histograms(ITEMS.assign(label=True))))


def test_histograms_are_fractions_of_their_group():
    figure = plots.reward_histograms(ITEMS, "few_shot")
    chosen = ITEMS[(ITEMS["subset"] == "safe") & (ITEMS["judge"] == "few_shot")]
    for trace, meets in zip(figure.data[:2], (True, False), strict=True):
        rewards = chosen["reward"][chosen["label"] == meets].to_numpy()
        lefts, heights = np.array(trace.x)[::2], np.array(trace.y)[::2]
        assert heights.sum() == pytest.approx(1)
        for left, right, height in zip(lefts, [*lefts[1:], 1.01], heights, strict=True):
            assert height == pytest.approx(((rewards >= left) & (rewards < right)).mean())
    assert all(tuple(axis.range) == (0, 1) for axis in figure.select_xaxes())


def test_rewards_that_are_no_probabilities_are_refused():
    with pytest.raises(ValueError, match="not a probability"):
        plots.reward_histograms(ITEMS.assign(reward=ITEMS["reward"] * 3))
    with pytest.raises(ValueError, match="no judge 'votes'"):
        plots.reward_histograms(ITEMS, "votes")


def test_labels_are_literal_and_short():
    assert literal("a<b & $c$") == "a&lt;b &amp; &#36;c&#36;"
    lines = label("w" * 30 + " and more words than two lines can hold", width=12, lines=2).split("<br>")
    assert len(lines) == 2 and all(len(line) <= 12 for line in lines) and lines[1].endswith("…")
    assert label("as it is") == "as it is"


@pytest.mark.slow
@every_figure
def test_no_label_of_a_hostile_criterion_is_markup(make, frame):
    hostile = frame[named(frame)].replace("polite", "<img src=x onerror=alert(1)> $x$")
    figure = make(frame.assign(**{named(frame): hostile}))
    text = plotly.io.to_json(figure).replace("\\u003c", "<")
    assert "<img" not in text and "$x$" not in text and "&lt;img src=x" in text


def png_size(content: bytes) -> tuple[int, int]:
    assert content[:8] == b"\x89PNG\r\n\x1a\n"
    return int.from_bytes(content[16:20], "big"), int.from_bytes(content[20:24], "big")


@pytest.fixture(scope="module")
def browser(chromium):
    with export.one_browser():
        yield


def test_the_size_of_an_image_can_be_given(tmp_path, browser):
    figure = plots.accuracy_by_subset(SUMMARY)
    width = figure.layout.width
    content = plots.save_figure(figure, tmp_path / "figure.PNG", width=640, height=480).read_bytes()
    assert png_size(content) == (1280, 960)
    assert figure.layout.width == width


POINTS = 72  # to an inch


@pytest.mark.parametrize(
    "theme, inches", [(COLUMN, 3.25), (PAGE, 6.75), (SCREEN, None)], ids=["column", "page", "screen"]
)
def test_print_figures_have_their_printed_size(theme, inches, tmp_path, browser):
    with themed(theme):
        figure = plots.accuracy_by_subset(SUMMARY)  # as wide as the page
    width, height = figure.layout.width, figure.layout.height
    inches = inches or width / 96
    assert width == theme.page_width
    pdf = plots.save_figure(figure, tmp_path / "figure.pdf").read_bytes()
    box = re.search(rb"/MediaBox \[0 0 ([\d.]+) ([\d.]+)\]", pdf)
    assert pdf.startswith(b"%PDF") and len(re.findall(rb"/Type\s*/Page\b", pdf)) == 1
    across, upright = (float(side) / POINTS for side in box.groups())
    assert across == pytest.approx(inches, abs=0.001)
    assert upright == pytest.approx(inches * height / width, abs=1 / 96)  # Chromium rounds to whole pixels

    svg = plots.save_figure(figure, tmp_path / "figure.svg").read_text()
    root = ElementTree.fromstring(svg)
    assert float(root.get("width")) / 96 == pytest.approx(inches)
    assert [float(side) for side in root.get("viewBox").split()] == [0, 0, width, height]
    points = [float(size) * inches * POINTS / width for size in re.findall(r"font-size: ?([\d.]+)px", svg)]
    assert len(points) > 10 and min(points) >= 6


def test_a_png_for_print_has_300_pixels_to_the_inch_and_says_so(tmp_path, browser):
    with themed(COLUMN):
        figure = plots.training_curves(HISTORY)
    content = plots.save_figure(figure, tmp_path / "figure.png").read_bytes()
    inches = figure.layout.width / COLUMN.page_width * 3.25
    assert png_size(content)[0] == pytest.approx(300 * inches, abs=1)
    kind, length = content[37:41], int.from_bytes(content[33:37], "big")
    assert (kind, length) == (b"pHYs", 9)
    assert int.from_bytes(content[41:45], "big") * 0.0254 == pytest.approx(300, abs=0.1)
    checksum = int.from_bytes(content[50:54], "big")
    assert checksum == zlib.crc32(content[37:50])


def test_a_theme_ends_with_its_block_and_a_figure_keeps_it():
    with themed(COLUMN):
        figure = plots.accuracy_by_subset(SUMMARY)
    assert page_width() == SCREEN.page_width
    assert (
        figure.layout.meta["theme"] == "column" and plots.accuracy_by_subset(SUMMARY).layout.meta["theme"] == "screen"
    )


def test_only_notable_negative_cells_carry_a_minus():
    values = np.array([[-1.0, -0.06, -0.05], [0.0, np.nan, 0.9]])
    assert signs(values, span=1).tolist() == [["−", "−", ""], ["", "", ""]]


def test_thinned_ticks_stand_clear_of_each_other():
    ticks, texts = thinned([1, 2, 3, 4], ["10", "20", "30", "40"], [0, 10, 20, 40])
    assert (ticks, texts) == ([1, 3, 4], ["10", "30", "40"])
    assert thinned([1, 2], ["1", "2"], [0, 100]) == ([1, 2], ["1", "2"])


SCORES = pd.DataFrame(
    {
        "criterion": ["polite", "polite", "safe"], "measure": ["leave_one_out", "shapley", "shapley"],
        "outcome": ["probability", "gap", "gap"], "layer": 2, "head": 3, "score": [0.125, -0.5, 0.75],
        "ci_low": [0.1, np.nan, 0.7], "ci_high": [0.15, np.nan, 0.8], "n": 40,
    }
)  # fmt: skip


@pytest.mark.parametrize("make", [plots.selected_heads, plots.selection_probabilities])
def test_hover_tells_the_scores_of_a_head_on_its_criterion_with_their_intervals(make):
    figure = make(HEADS, attributions=SCORES)
    text = figure.data[CRITERIA.index("polite")].hovertext[2][3]
    assert "Left out of the set on probability of the right verdict: +0.1250, interval +0.1000 to +0.1500" in text
    assert "Shapley value on verdict gap (logits): −0.5000" in text and "+0.75" not in text and "nan" not in text
    assert "Shapley" not in figure.data[CRITERIA.index("polite")].hovertext[2][2]
    with pytest.raises(ValueError, match="'attributions' lacks the column 'score'"):
        make(HEADS, attributions=SCORES.drop(columns="score"))


def heights_at(items: pd.DataFrame, shares: list[float]) -> list[float]:
    """True positive rates at these false positive rates, by trying every threshold of every seed; mean over seeds."""
    rates = []
    for seed in items["seed"].unique():
        one = items[items["seed"] == seed]
        points = sorted(
            (float((one["reward"][~one["label"]] >= t).mean()), float((one["reward"][one["label"]] >= t).mean()))
            for t in [np.inf, *one["reward"]]
        )
        found = []
        for share in shares:
            left = max(point for point in points if point[0] <= share)
            right = min((point for point in points if point[0] > share), default=(1.0, 1.0))
            slope = (right[1] - left[1]) / (right[0] - left[0]) if right[0] > left[0] else 0
            found.append(left[1] + slope * (share - left[0]))
        rates.append(found)
    return np.mean(rates, axis=0).tolist()


@pytest.mark.slow
def test_roc_curves_are_means_over_seeds_at_equal_false_positive_rates():
    items = ITEMS.assign(reward=(0.3 * ITEMS["seed"] + ITEMS["reward"] / 3).round(2))  # with ties, and seeds far apart
    figure = roc_curves(items, ["few_shot", "arm_reinforce"])
    for index, criterion in enumerate(CRITERIA):
        axis = "x" if index == 0 else f"x{index + 1}"
        here = [trace for trace in figure.data if trace.xaxis == axis]
        for judge in ("few_shot", "arm_reinforce"):
            chosen = items[(items["subset"] == criterion) & (items["judge"] == judge)]
            line = next(t for t in here if t.name == JUDGES[judge].style.label and t.mode == "lines")
            assert list(line.x[1:]) == pytest.approx(np.linspace(0, 1, 101)) and (line.x[0], line.y[0]) == (0, 0)
            shares = [0.0, 0.13, 0.5, 0.87, 1.0]
            at = [line.y[1 + round(100 * share)] for share in shares]
            assert at == pytest.approx(heights_at(chosen, shares))
            band = next(t for t in here if t.name == f"{JUDGES[judge].style.label}, fits")
            half = len(band.y) // 2
            highest, lowest = np.array(band.y[:half]), np.array(band.y[half:])[::-1]
            assert (lowest <= np.array(line.y[1:]) + 1e-12).all() and (highest >= np.array(line.y[1:]) - 1e-12).all()
            area = next(t for t in here if t.name == f"{JUDGES[judge].style.label}, AUC")
            assert area.text[0].replace("&gt;", "").replace(">", "") == f"{min(count_pairs(chosen), 0.99):.2f}"
    assert not any(JUDGES["zero_shot"].style.label in (trace.name or "") for trace in figure.data)


def test_roc_curves_want_their_judges_and_numbers():
    with pytest.raises(ValueError, match="no judge 'votes'"):
        roc_curves(ITEMS, ["votes"])
    with pytest.raises(ValueError, match="'few_shot' on 'polite' is not a number"):
        at = (ITEMS["judge"] == "few_shot") & (ITEMS["subset"] == "polite")
        roc_curves(ITEMS.assign(reward=ITEMS["reward"].where(~at)))
    one_label = roc_curves(ITEMS.assign(label=True), ["arm_reinforce"])
    assert [t.text for t in one_label.data if t.mode == "markers+text"] == [("–",)] * len(CRITERIA)
    assert not any(t.fill for t in one_label.data)


def test_a_web_page_is_self_contained(tmp_path):
    page = plots.save_figure(plots.training_curves(HISTORY), str(tmp_path / "figure.html")).read_text()
    assert "Plotly.newPlot" in page and not re.search(r"<(script|link|img)[^>]+(src|href)=", page)


def test_other_formats_are_refused(tmp_path):
    with pytest.raises(ValueError, match=r"figure\.gif.*\.png, \.svg, \.pdf or \.html"):
        plots.save_figure(plots.training_curves(HISTORY), tmp_path / "figure.gif")


def test_missing_kaleido_is_explained(tmp_path, monkeypatch):
    monkeypatch.setattr(export, "find_spec", lambda name: None)
    with pytest.raises(RuntimeError, match="pip install"):
        plots.save_figure(plots.training_curves(HISTORY), tmp_path / "figure.png")


def test_missing_chromium_is_explained(tmp_path, monkeypatch):
    import kaleido
    from kaleido.errors import ChromeNotFoundError

    def fails(*args: object, **options: object) -> bytes:
        raise ChromeNotFoundError

    monkeypatch.setattr(kaleido, "calc_fig_sync", fails)
    with pytest.raises(RuntimeError, match="apt-get install chromium"):
        plots.save_figure(plots.training_curves(HISTORY), tmp_path / "figure.png")


def test_a_saved_page_takes_the_place_of_the_old_one_as_a_whole(tmp_path):
    path = tmp_path / "figures" / "page.html"
    plots.save_figure(go.Figure(), path)
    path.chmod(0o600)
    plots.save_figure(go.Figure(layout={"title": {"text": "the newer one"}}), path)
    assert "the newer one" in path.read_text(encoding="utf-8")
    assert [one.name for one in path.parent.iterdir()] == ["page.html"]  # no temporary file is left
    assert path.stat().st_mode & 0o777 == 0o600
