"""Figures of judges say what their tables say."""

from __future__ import annotations

import itertools
import math
import re

import numpy as np
import pandas as pd
import plotly.graph_objects as go
import plotly.io
import pytest
from plots.synthetic_benchmark import (
    GRADED,
    NO_EXAMPLES,
    PAIR_CELLS,
    STUDIED,
    SUBSETS,
    make_calibration,
    make_comparisons,
    make_summary,
)

from arm_lens import plots
from arm_lens.evaluation.main_setting import main_rows, main_settings
from arm_lens.plots.judges import JudgeRows
from arm_lens.plots.matrices import ACCURACY, headings
from arm_lens.plots.theme import DIVERGING, page_width
from arm_lens.registry import JUDGES

JUDGES_HERE = ("zero_shot", "few_shot", "arm_reinforce", "arm_random_heads", "sav", "length")
THREE = SUBSETS[:3]
SUMMARY = make_summary(JUDGES_HERE, THREE, n=50)
MAIN = main_rows(SUMMARY, main_settings(SUMMARY))
CRITERIA = MAIN[MAIN["benchmark"] == "criteria"]
HACKING = MAIN[MAIN["benchmark"] == "hacking"]
COMPARED = main_rows(make_comparisons(SUMMARY), main_settings(SUMMARY))
COMPARED = COMPARED[COMPARED["benchmark"] == "criteria"]
STUDY = SUMMARY[SUMMARY["benchmark"] == "criteria"]
BINS = make_calibration(("few_shot", "sav"), n=80)
FIGURES = {
    "accuracy": (plots.accuracy_by_judge, CRITERIA, "accuracy"),
    "differences": (plots.differences, COMPARED, "p_holm"),
    "bias": (plots.bias_grid, HACKING, "accuracy"),
    "examples": (plots.accuracy_by_examples, STUDY, "ci_low"),
    "noise": (plots.accuracy_by_noise, STUDY, "n_examples"),
    "reliability": (plots.reliability, BINS, "confidence"),
}
every_figure = pytest.mark.parametrize("make, frame, column", FIGURES.values(), ids=FIGURES)


def rows_of(figure: go.Figure, axis: str = "yaxis") -> dict[str, float]:
    """Tick text -> position."""
    return dict(zip(figure.layout[axis].ticktext, figure.layout[axis].tickvals, strict=True))


def plain(text: str) -> str:
    return re.sub("<[^>]*>", "", text)


def heat(figure: go.Figure) -> list[go.Heatmap]:
    return [trace for trace in figure.data if trace.type == "heatmap"]


@every_figure
def test_an_empty_table_is_refused(make, frame, column):
    with pytest.raises(ValueError, match="is empty"):
        make(frame.iloc[:0])


@every_figure
def test_the_missing_column_is_named(make, frame, column):
    with pytest.raises(ValueError, match=f"lacks the column '{column}'"):
        make(frame.drop(columns=column))


@every_figure
def test_the_table_is_left_as_it_was(make, frame, column):
    before = frame.copy()
    make(frame)
    pd.testing.assert_frame_equal(frame, before)


@pytest.mark.slow
@every_figure
def test_of_several_benchmarks_one_has_to_be_named(make, frame, column):
    both = pd.concat([frame, frame.assign(benchmark="another")])
    with pytest.raises(ValueError, match="several values of benchmark"):
        make(both)
    with pytest.raises(ValueError, match="no benchmark 'a third'"):
        make(both, benchmark="a third")
    named = make(both, benchmark=str(frame["benchmark"].iloc[0]))
    assert plotly.io.to_json(named) == plotly.io.to_json(make(frame))


@every_figure
def test_the_same_table_makes_the_same_figure(make, frame, column):
    assert plotly.io.to_json(make(frame)) == plotly.io.to_json(make(frame))


@every_figure
def test_figures_fit_the_page(make, frame, column):
    figure = make(frame)
    assert figure.layout.width <= page_width() and figure.layout.height
    for axis in [*figure.select_xaxes(), *figure.select_yaxes()]:
        assert 0 <= axis.domain[0] < axis.domain[1] <= 1


@every_figure
def test_no_label_of_hostile_data_is_markup(make, frame, column):
    hostile = "<img src=x onerror=alert(1)> $x$"
    subsets = frame["subset"].replace({"safe": hostile}).str.replace("format |", f"{hostile} |", regex=False)
    names = {judge: hostile for judge in ("sav", "few_shot")}
    text = plotly.io.to_json(make(frame.assign(subset=subsets), names=names)).replace("\\u003c", "<")
    assert "<img" not in text and "$x$" not in text and "&lt;img src=x" in text


@pytest.mark.parametrize("make, frame", [(plots.accuracy_by_judge, CRITERIA), (plots.bias_grid, HACKING)])
def test_two_settings_at_once_are_refused(make, frame):
    with pytest.raises(ValueError, match=r"several rows of .*judge 'sav'"):
        make(pd.concat([frame, frame[frame["judge"] == "sav"].assign(n_examples=3)]))


def test_no_two_judges_share_a_symbol():
    assert len({spec.style.symbol for spec in JUDGES.values()}) == len(JUDGES)


def test_unknown_judges_stand_in_a_group_of_their_own_after_the_known():
    rows = JudgeRows.of(["mine", "sav", "arm_reinforce", "yours"], {"mine": "My judge"})
    assert list(rows.y) == ["arm_reinforce", "sav", "mine", "yours"]
    assert [name for key, name in rows.rows if not key] == ["Activation RM", "Readouts", "Others"]
    assert rows.styles["mine"].label == "My judge" and rows.styles["mine"].symbol != rows.styles["yours"].symbol


def test_every_judge_stands_below_the_name_of_its_group():
    rows = JudgeRows.of(JUDGES)
    assert list(rows.y) == [key for key in rows.keys if key] and set(rows.y) == set(JUDGES)
    for judge, y in rows.y.items():
        above = next(name for key, name in rows.rows[y::-1] if not key)
        assert (rows.styles[judge].label, rows.styles[judge].group) == (rows.rows[y][1], above)


def test_dots_are_means_over_subsets_and_their_intervals_those_of_independent_subsets():
    figure = plots.accuracy_by_judge(CRITERIA)
    places = rows_of(figure)
    for trace in figure.data:
        if trace.type != "scatter" or trace.mode != "markers":
            continue
        judge = next(judge for judge in JUDGES_HERE if JUDGES[judge].style.label == trace.name)
        own = CRITERIA[CRITERIA["judge"] == judge]
        accuracy, low = own["accuracy"].to_list(), own["ci_low"].to_list()
        assert trace.x[0] == pytest.approx(sum(accuracy) / 3)
        error = math.hypot(*(a - b for a, b in zip(accuracy, low, strict=True))) / 3
        assert trace.error_x.arrayminus[0] == pytest.approx(error)
        assert trace.y[0] == places[trace.name]


def test_cells_of_the_table_are_the_rows_of_the_summary_and_printed():
    figure = plots.accuracy_by_judge(CRITERIA)
    table = heat(figure)[0]
    places, columns = rows_of(figure, "yaxis2"), list(figure.layout.xaxis2.ticktext)
    for row in CRITERIA.to_dict("records"):
        at = places[JUDGES[row["judge"]].style.label], columns.index(row["subset"])
        assert table.z[at[0]][at[1]] == row["accuracy"]
        assert plain(table.text[at[0]][at[1]]) == f"{row['accuracy']:.2f}"
    assert np.isfinite(np.array(table.z, dtype=float)).sum() == len(CRITERIA)


def test_a_judge_without_a_subset_has_no_mean_but_its_cells():
    missing = CRITERIA[~((CRITERIA["judge"] == "sav") & (CRITERIA["subset"] == "safe"))]
    figure = plots.accuracy_by_judge(missing)
    assert "SAV" not in {trace.name for trace in figure.data}
    assert [note.y for note in figure.layout.annotations if note.text == "not on every subset"] == [
        rows_of(figure)["SAV"]
    ]
    (cross,) = [trace for trace in figure.data if trace.type == "scatter" and trace.marker.symbol == "x-thin"]
    assert list(cross.y) == [rows_of(figure)["SAV"]] and figure.layout.annotations[-1].text == "×: not measured."
    assert np.isfinite(np.array(heat(figure)[0].z, dtype=float)).sum() == len(missing)


def test_many_subsets_stand_in_tables_below_each_other_and_none_is_lost():
    many = pd.concat([CRITERIA.assign(subset=f"part {index}") for index in range(23)])
    many = many.drop_duplicates(["judge", "subset"])
    figure = plots.accuracy_by_judge(many)
    shown = [text for axis in figure.select_xaxes() if axis.side == "top" for text in axis.ticktext]
    assert sorted(shown) == sorted(many["subset"].unique())
    spans = sorted(tuple(axis.domain) for axis in figure.select_yaxes())
    assert all(low[1] < high[0] for low, high in itertools.pairwise(spans))


def test_one_subset_needs_no_table():
    figure = plots.accuracy_by_judge(CRITERIA[CRITERIA["subset"] == "safe"])
    assert not heat(figure) and any(note.text == "<b>safe</b>" for note in figure.layout.annotations)


@pytest.mark.parametrize(
    "value, text", [(1.0, "1.00"), (0.9999, ">0.99"), (0.0, "0.00"), (0.001, "<0.01"), (0.456, "0.46")]
)
def test_printed_cells_do_not_round_to_certainty(value, text):
    assert ACCURACY.text(value) == text
    assert ACCURACY.text(value, short=True) == ("1.0" if value == 1 else text.replace("0.", ".", 1))


def test_headings_are_slanted_only_where_a_word_does_not_fit():
    assert headings(["bias on rejected", "bias on both"], 62)[:2] == (
        ["bias on<br>rejected", "bias on<br>both"],
        0,
    )
    texts, angle, room = headings(["llmbar-adver-GPTInst"], 62)
    assert texts == ["llmbar-adver-GPTInst"] and angle < 0 and room > 60


def test_differences_are_lead_minus_other_filled_where_significant():
    turned = COMPARED.copy()
    some = turned["other"].isin(["sav", "length"])  # as tables list each pair of judges once, either way round
    turned.loc[some, ["judge", "other"]] = COMPARED.loc[some, ["other", "judge"]].to_numpy()
    turned.loc[some, ["difference", "ci_low", "ci_high"]] = -COMPARED.loc[
        some, ["difference", "ci_high", "ci_low"]
    ].to_numpy()
    more = turned.assign(judge="few_shot")[turned["other"] == "zero_shot"]
    figure = plots.differences(pd.concat([turned, more]))
    places = rows_of(figure)
    seen = set()
    for trace in figure.data:
        if trace.x == (None,):  # the legend's
            continue
        subset = THREE[int(trace.xaxis[1:] or "1") - 1]
        for x, y, minus, plus in zip(trace.x, trace.y, trace.error_x.arrayminus, trace.error_x.array, strict=True):
            judge = next(judge for judge in JUDGES_HERE if places.get(JUDGES[judge].style.label) == y)
            row = COMPARED[(COMPARED["other"] == judge) & (COMPARED["subset"] == subset)].iloc[0]
            assert (x, x - minus, x + plus) == pytest.approx((row["difference"], row["ci_low"], row["ci_high"]))
            assert (trace.marker.color != "#ffffff") == (row["p_holm"] < 0.05 and row["ci_low"] * row["ci_high"] > 0)
            seen.add((judge, subset))
    assert len(seen) == len(COMPARED)
    low, high = figure.layout.xaxis.range
    assert low == -high and high > COMPARED[["ci_low", "ci_high"]].abs().max().max()


def test_a_lead_without_comparisons_is_refused():
    with pytest.raises(ValueError, match="compares 'probe' with no other judge"):
        plots.differences(COMPARED, lead="probe")


def lines(figure: go.Figure, judge: str, axis: str) -> list[go.Scatter]:
    name = JUDGES[judge].style.label
    return [t for t in figure.data if t.name == name and (t.xaxis or "x") == axis and t.x[0] is not None]


@pytest.mark.parametrize(
    "make, varied, fixed, value",
    [(plots.accuracy_by_examples, "n_examples", "noise", 0.0), (plots.accuracy_by_noise, "noise", "n_examples", 40)],
)
def test_lines_of_a_study_are_the_rows_with_all_else_fixed(make, varied, fixed, value):
    figure = make(STUDY)
    for index, subset in enumerate(THREE, start=2):  # the first panel is the mean
        for judge in set(STUDIED) & set(JUDGES_HERE):
            own = STUDY[(STUDY["judge"] == judge) & (STUDY["subset"] == subset) & (STUDY[fixed] == value)]
            trace = lines(figure, judge, f"x{index}")[0]
            assert list(trace.y) == own.sort_values(varied)["accuracy"].to_list()
            assert len(trace.y) > 2 and np.all(np.diff(trace.x) > 0)


def test_the_first_panel_of_a_study_is_the_mean_over_subsets():
    trace = lines(plots.accuracy_by_examples(STUDY), "sav", "x")[0]
    own = STUDY[(STUDY["judge"] == "sav") & (STUDY["noise"] == 0)]
    assert list(trace.y) == pytest.approx(
        [own[own["n_examples"] == n]["accuracy"].mean() for n in (3, 5, 10, 20, 40, 80)]
    )


def test_numbers_of_examples_are_on_a_logarithmic_axis_with_their_own_ticks():
    axis = plots.accuracy_by_examples(STUDY).layout.xaxis
    assert list(axis.ticktext) == ["3", "5", "10", "20", "40", "80"]
    assert list(axis.tickvals) == pytest.approx([math.log2(n) for n in (3, 5, 10, 20, 40, 80)])
    assert list(plots.accuracy_by_noise(STUDY).layout.xaxis.ticktext) == ["0%", "10%", "20%", "40%"]


def test_judges_without_examples_are_level_lines_and_others_with_one_size_are_left_out():
    one = STUDY[~((STUDY["judge"] == "few_shot") & (STUDY["n_examples"] != 40))]
    figure = plots.accuracy_by_examples(one)
    level = lines(figure, "zero_shot", "x2")[0]
    expected = STUDY[(STUDY["judge"] == "zero_shot") & (STUDY["subset"] == THREE[0])]["accuracy"].iloc[0]
    assert set(level.y) == {expected} and level.line.dash == "dot"
    assert not lines(figure, "few_shot", "x2")
    assert not lines(plots.accuracy_by_examples(STUDY, references=()), "zero_shot", "x2")


def test_a_study_of_one_size_is_refused():
    with pytest.raises(ValueError, match="two values of 'n_examples'"):
        plots.accuracy_by_examples(STUDY[STUDY["n_examples"].isin([0, 40])])
    with pytest.raises(ValueError, match="two values of 'noise'"):
        plots.accuracy_by_noise(STUDY[STUDY["noise"] == 0])


def test_a_panel_of_the_bias_grid_is_one_bias_and_mapping_and_holds_its_cells():
    figure = plots.bias_grid(HACKING)
    panels = [note.text for note in figure.layout.annotations if note.text.endswith("examples")]
    assert len(panels) == len(heat(figure)) == 9
    places = rows_of(figure)
    columns = [text.replace("<br>", " ") for text in figure.layout.xaxis.ticktext]
    assert (
        sorted(columns) == sorted(PAIR_CELLS) and columns[0] == "bias on rejected" and columns[-1] == "bias on chosen"
    )
    for title, trace in zip(panels, heat(figure), strict=True):
        bias, mapping = re.fullmatch(r"<b>(.*)</b>, (.*) examples", title).groups()
        for row in HACKING[HACKING["subset"].str.startswith(f"{bias} | {mapping} |")].to_dict("records"):
            at = places[JUDGES[row["judge"]].style.label], columns.index(row["subset"].split(" | ")[2])
            assert trace.z[at[0]][at[1]] == row["accuracy"]
        assert trace.coloraxis == "coloraxis"
    assert (figure.layout.coloraxis.cmin, figure.layout.coloraxis.cmax) == (0, 1)


@pytest.mark.parametrize("cell", ["bias on rejected", "incorrect, biased"])
def test_a_bias_grid_may_have_a_single_cell_and_names_of_any_length(cell):
    one = HACKING[HACKING["subset"] == "length | standard | bias on rejected"]
    figure = plots.bias_grid(one.assign(subset=f"{'long ' * 12}| standard | {cell}"))
    assert len(heat(figure)) == 1 and figure.layout.width <= page_width()
    assert "long…</b>, standard examples" in figure.layout.annotations[0].text


def test_subsets_that_are_no_cells_make_no_bias_grid():
    with pytest.raises(ValueError, match=r"no subset .* is a cell"):
        plots.bias_grid(CRITERIA)


def test_the_scale_of_cells_is_palest_in_the_middle_and_darkens_to_both_ends():
    def lightness(color: str) -> float:
        red, green, blue = (int(color[i : i + 2], 16) / 255 for i in (1, 3, 5))
        return 0.2126 * red + 0.7152 * green + 0.0722 * blue

    shades = [lightness(color) for _, color in DIVERGING]
    middle = [stop for stop, _ in DIVERGING].index(0.5)
    assert shades[: middle + 1] == sorted(shades[: middle + 1])
    assert shades[middle:] == sorted(shades[middle:], reverse=True)


def test_the_made_up_tables_speak_of_the_same_judges():
    assert set(STUDIED) | set(GRADED) | set(NO_EXAMPLES) <= set(JUDGES)
