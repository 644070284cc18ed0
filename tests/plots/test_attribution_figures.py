"""Figures of single heads say what their tables say: scores, interactions, agreement, and how the search settled."""

from __future__ import annotations

import itertools
import json
import re

import numpy as np
import pandas as pd
import plotly.io
import pytest
from plots.synthetic_attribution import (
    make_agreement,
    make_attributions,
    make_curve,
    make_interactions,
    make_trajectory,
)
from scipy.stats import spearmanr

from arm_lens.evaluation.statistics import spearman
from arm_lens.plots.comparison_matrices import agreement_matrix, head_matrix, interaction_matrix
from arm_lens.plots.head_maps import MapGrid, attribution_maps
from arm_lens.plots.measure_scatter import far_off, measures_against_each_other
from arm_lens.plots.measures import MEASURES, measure_styles
from arm_lens.plots.notation import compact, digits_for, signed
from arm_lens.plots.selection_steps import selection_steps, selection_trajectories, spread
from arm_lens.plots.studies import accuracy_by_heads, places
from arm_lens.plots.theme import COLUMN, PAGE, SCREEN, page_height, themed

CRITERIA = ("safe", "polite", "list")
SCORES = make_attributions(CRITERIA, outcomes=("probability", "gap"), n_layers=4, n_heads=5)
SHAPLEY = SCORES[SCORES["measure"] == "shapley"]
PAIRS = make_interactions(("safe",), 6, 4, 5)
AGREEMENT = make_agreement(SCORES)
TRAJECTORY = make_trajectory(CRITERIA, range(0, 100, 10), 4, 5)
CURVE = make_curve(CRITERIA)
FIGURES = {
    "maps": (attribution_maps, SHAPLEY),
    "head matrix": (head_matrix, SHAPLEY),
    "interactions": (interaction_matrix, PAIRS),
    "agreement": (agreement_matrix, AGREEMENT),
    "scatter": (measures_against_each_other, SCORES),
    "steps": (selection_steps, TRAJECTORY),
    "trajectories": (selection_trajectories, TRAJECTORY),
    "curve": (accuracy_by_heads, CURVE),
}
every_figure = pytest.mark.parametrize("make, frame", FIGURES.values(), ids=FIGURES)


def heat(figure):
    return [trace for trace in figure.data if trace.type == "heatmap"]


def plain(text: str) -> str:
    return re.sub("<[^>]*>", "", text)


@every_figure
def test_bad_tables_are_refused_and_good_ones_left_as_they_were(make, frame):
    with pytest.raises(ValueError, match="is empty"):
        make(frame.iloc[:0])
    with pytest.raises(ValueError, match="lacks the column 'criterion'"):
        make(frame.drop(columns="criterion"))
    before = frame.copy()
    make(frame)
    pd.testing.assert_frame_equal(frame, before)


@every_figure
def test_one_criterion_is_enough_and_its_name_is_no_markup(make, frame):
    hostile = "<img src=x onerror=alert(1)> $x$"
    one = frame[frame["criterion"] == "safe"].assign(criterion=hostile)
    text = plotly.io.to_json(make(one)).replace("\\u003c", "<")
    assert "<img" not in text and "$x$" not in text
    assert make in (head_matrix, selection_steps, agreement_matrix) or "&lt;img src=x" in text


@pytest.mark.parametrize(
    "make, frame", [FIGURES[name] for name in ("maps", "interactions", "agreement", "head matrix")]
)
def test_an_outcome_that_was_not_measured_is_refused(make, frame):
    with pytest.raises(ValueError, match="no outcome 'accuracy'; it has probability, gap"):
        make(frame[frame["outcome"] != "accuracy"], outcome="accuracy")


# -- maps ------------------------------------------------------------------------------------------------------------


def test_maps_of_one_measure_hold_the_scores_on_one_scale_centred_at_zero():
    figure = attribution_maps(SCORES.sample(frac=1, random_state=0), measure="shapley", criterion=None)
    rows = SHAPLEY[SHAPLEY["outcome"] == "probability"]
    drawn = {trace.name: trace for trace in heat(figure)}
    assert set(drawn) == set(CRITERIA)
    for row in rows.to_dict("records"):
        assert drawn[row["criterion"]].z[row["layer"]][row["head"]] == pytest.approx(row["score"])
    axis = figure.layout.coloraxis
    assert axis.cmin == -axis.cmax and axis.cmax == pytest.approx(rows["score"].abs().max())
    assert {trace.coloraxis for trace in drawn.values()} == {"coloraxis"}


def test_maps_of_several_measures_are_each_scaled_to_their_own_largest_and_say_their_range():
    figure = attribution_maps(SCORES, criterion="polite", outcome="gap")
    assert [trace.name for trace in heat(figure)] == [style.name for style in MEASURES.values()]  # causal ones first
    assert (figure.layout.coloraxis.cmin, figure.layout.coloraxis.cmax) == (-1, 1)
    for measure, trace, note in zip(MEASURES, heat(figure), figure.layout.annotations, strict=False):
        part = SCORES[(SCORES["criterion"] == "polite") & (SCORES["outcome"] == "gap") & (SCORES["measure"] == measure)]
        table = part.pivot(index="layer", columns="head", values="score").to_numpy()
        np.testing.assert_allclose(np.asarray(trace.z, dtype=float), table / np.abs(table).max())
        assert f"{signed(table.min(), digits=2)} to {signed(table.max(), digits=2)}" in note.text


def test_a_minus_stands_exactly_in_cells_notably_below_zero():
    for theme in (SCREEN, COLUMN):
        with themed(theme):
            figure = attribution_maps(SHAPLEY)
        for trace in heat(figure):
            z = np.asarray(trace.z, dtype=float)
            assert np.array_equal(np.asarray(trace.text) == "−", z < -0.05 * figure.layout.coloraxis.cmax)


def symbols(figure, shape):
    """(layer, head) of all symbols of this shape in the first panel."""
    return {
        (y, x)
        for trace in figure.data
        if trace.type == "scatter" and trace.xaxis == "x" and trace.marker.symbol == shape
        for x, y in zip(trace.x, trace.y, strict=True)
    }


def test_small_cells_have_strokes_instead_of_minus_signs():
    figure = attribution_maps(make_attributions(("safe",), ("shapley",), ("gap",), 40, 8), outcome="gap")
    assert all(trace.text is None for trace in heat(figure))
    z = np.asarray(heat(figure)[0].z, dtype=float)
    notable = {tuple(at) for at in np.argwhere(z < -0.1 * figure.layout.coloraxis.cmax).tolist()}
    assert notable and symbols(figure, "line-ew") == notable
    assert "A minus marks" in figure.layout.annotations[-1].text


def test_in_tiny_cells_the_largest_scores_are_triangles_that_point_down_below_zero():
    large = make_attributions(("safe",), ("shapley",), ("gap",), 40, 80)
    with themed(COLUMN):
        figure = attribution_maps(large, outcome="gap")
    z = np.asarray(heat(figure)[0].z, dtype=float)
    largest = [divmod(index, 80) for index in np.argsort(-np.abs(z).ravel())[:12].tolist()]
    for shape, sign in (("triangle-up", 1), ("triangle-down", -1)):
        expected = {head for head in largest if np.sign(z[head]) == sign}
        assert expected and symbols(figure, shape) == expected
    assert symbols(figure, "line-ew") == set()
    assert "the 12 largest in size, pointing down below zero" in figure.layout.annotations[-1].text.replace("<br>", " ")


@pytest.mark.parametrize("theme", [SCREEN, PAGE, COLUMN], ids=lambda theme: theme.name)
@pytest.mark.parametrize("count", [1, 4, 9])
@pytest.mark.parametrize("shape", [(30, 9), (24, 14), (80, 64), (6, 8)], ids=str)
def test_maps_of_any_model_fit_a_page_and_have_no_cell_that_is_a_line(shape, count, theme):
    with themed(theme):
        grid = MapGrid.of(count, *shape)
        panels, most = grid.panels, page_height()
        figure = panels.figure([""] * count)
    assert figure.layout.height <= most - 90  # which the caption takes
    cell = panels.width / shape[1], panels.height / shape[0]
    assert grid.cell <= min(cell) + 0.5 and max(cell) < 4 * min(cell)
    assert min(cell) > (5 if count == 1 or shape != (80, 64) else 1.4)


def test_a_head_that_was_not_measured_is_blank_with_a_cross():
    holes = SHAPLEY[~((SHAPLEY["layer"] == 2) & (SHAPLEY["head"] == 3))]
    holes = holes.assign(score=holes["score"].where((holes["layer"] != 0) | (holes["head"] != 0)))
    figure = attribution_maps(holes)
    z = np.asarray(heat(figure)[0].z, dtype=float)
    assert np.argwhere(np.isnan(z)).tolist() == [[0, 0], [2, 3]]
    cross = next(trace for trace in figure.data if trace.type == "scatter")
    assert (list(cross.x), list(cross.y)) == ([0, 3], [0, 2])
    assert "not measured" in heat(figure)[0].hovertext[2][3] and "not measured" in heat(figure)[0].hovertext[0][0]


def test_hovering_tells_the_score_its_interval_n_and_every_other_measure():
    figure = attribution_maps(SCORES, measure="gradient")
    text = heat(figure)[1].hovertext[3][4]
    rows = SCORES.query("criterion == 'polite' and layer == 3 and head == 4 and outcome == 'probability'")
    assert len(rows) == len(MEASURES) and "polite" in text and "L3H4" in text
    for row in rows.to_dict("records"):
        interval = f"interval {signed(row['ci_low'])} to {signed(row['ci_high'])}, n = {row['n']}"
        assert f"{MEASURES[row['measure']].name} {signed(row['score'])}, {interval}" in text
    assert text.index("<b>Gradient") < text.index("Shapley")


def test_several_measures_of_several_criteria_are_ambiguous():
    with pytest.raises(ValueError, match=f"{len(MEASURES)} measures of 3 criteria: name a measure"):
        attribution_maps(SCORES)
    with pytest.raises(ValueError, match="no measure 'votes'"):
        attribution_maps(SCORES, measure="votes")
    with pytest.raises(ValueError, match=r"several rows of criterion 'safe'.*layer 0, head 0"):
        attribution_maps(pd.concat([SHAPLEY, SHAPLEY]))


# -- heads by criteria, heads by heads --------------------------------------------------------------------------------


def test_the_rows_are_the_union_of_the_top_heads_by_layer():
    figure = head_matrix(SHAPLEY, outcome="gap", top=2)
    rows = SHAPLEY[SHAPLEY["outcome"] == "gap"]
    best = set()
    for criterion in CRITERIA:
        scores = {
            (r["layer"], r["head"]): abs(r["score"]) for r in rows[rows["criterion"] == criterion].to_dict("records")
        }
        best |= set(sorted(scores, key=scores.__getitem__)[-2:])
    assert list(figure.layout.yaxis.ticktext) == [f"L{layer}H{head}" for layer, head in sorted(best)]
    table = rows.set_index(["layer", "head", "criterion"])["score"]
    expected = [[table[layer, head, criterion] for criterion in CRITERIA] for layer, head in sorted(best)]
    np.testing.assert_allclose(np.asarray(heat(figure)[0].z, dtype=float), expected)
    assert figure.layout.coloraxis.cmin == -figure.layout.coloraxis.cmax == -np.abs(expected).max()
    assert figure.layout.yaxis.range[0] > figure.layout.yaxis.range[1]  # the first at the top


def test_numbers_are_printed_bold_exactly_where_the_interval_excludes_zero():
    figure = head_matrix(SHAPLEY, heads=itertools.product(range(4), range(5)))
    table = SHAPLEY[SHAPLEY["outcome"] == "probability"].set_index(["layer", "head", "criterion"])
    texts, bold = heat(figure)[0].text, 0
    for (layer, head), (column, criterion) in itertools.product(np.ndindex(4, 5), enumerate(CRITERIA)):
        row, text = table.loc[(layer, head, criterion)], texts[layer * 5 + head][column]
        assert plain(text) == compact(row["score"], digits_for(figure.layout.coloraxis.cmax))
        assert ("<b>" in text) == (row["ci_low"] > 0 or row["ci_high"] < 0)
        bold += "<b>" in text
    assert 0 < bold < 60


def test_similar_heads_stand_beside_each_other_on_request():
    twins = SHAPLEY.copy()
    copied = twins[(twins["layer"] == 0) & (twins["head"] == 0)]["score"].to_numpy()
    twins.loc[(twins["layer"] == 3) & (twins["head"] == 4), "score"] = copied
    figure = head_matrix(twins, heads=list(np.ndindex(4, 5)), order="similarity")
    names = list(figure.layout.yaxis.ticktext)
    assert abs(names.index("L0H0") - names.index("L3H4")) == 1 and len(names) == 20


def test_heads_that_are_not_there_are_refused():
    with pytest.raises(ValueError, match="no head L7H1"):
        head_matrix(SHAPLEY, heads=[(0, 1), (7, 1)])
    with pytest.raises(ValueError, match="top is 0"):
        head_matrix(SHAPLEY, top=0)


def test_interactions_are_symmetric_and_the_diagonal_is_blank():
    figure = interaction_matrix(PAIRS, outcome="gap")
    names, z = list(figure.layout.xaxis.ticktext), np.asarray(heat(figure)[0].z, dtype=float)
    assert names == list(figure.layout.yaxis.ticktext) and len(names) == 6
    np.testing.assert_array_equal(z, z.T)
    assert np.isnan(np.diag(z)).all() and np.isnan(z).sum() == 6
    for row in PAIRS[PAIRS["outcome"] == "gap"].to_dict("records"):
        a, b = (names.index(f"L{row[f'layer_{end}']}H{row[f'head_{end}']}") for end in "ab")
        assert z[a, b] == row["interaction"]
        assert ("<b>" in heat(figure)[0].text[a][b]) == (row["ci_low"] > 0 or row["ci_high"] < 0)
        assert f"standard error {row['se']:.4f}" in heat(figure)[0].hovertext[a][b]
    assert figure.layout.coloraxis.cmin == -figure.layout.coloraxis.cmax == -np.nanmax(np.abs(z))


def test_cells_too_small_for_numbers_ring_what_is_not_told_apart_from_zero():
    many = make_interactions(("safe",), 20, 6, 8)
    with themed(COLUMN):
        figure = interaction_matrix(many)
    texts = heat(figure)[0].text
    assert figure.layout.coloraxis.showscale
    ends = [many[["layer_a", "head_a"]], many[["layer_b", "head_b"]]]
    heads = sorted({tuple(head) for end in ends for head in end.to_numpy().tolist()})
    names = [f"L{layer}H{head}" for layer, head in heads]
    for row in many[many["outcome"] == "gap"].to_dict("records"):
        a, b = (names.index(f"L{row[f'layer_{end}']}H{row[f'head_{end}']}") for end in "ab")
        assert (texts[a][b] == "∘") == (row["ci_low"] <= 0 <= row["ci_high"])


def test_a_pair_that_is_there_twice_or_misses_is_told():
    with pytest.raises(ValueError, match="several rows of criterion 'safe'"):
        interaction_matrix(pd.concat([PAIRS, PAIRS]))
    turned = PAIRS.rename(columns={"layer_a": "layer_b", "layer_b": "layer_a", "head_a": "head_b", "head_b": "head_a"})
    with pytest.raises(ValueError, match=r"has L\d+H\d+ and L\d+H\d+ twice"):
        interaction_matrix(pd.concat([PAIRS, turned]))
    with pytest.raises(ValueError, match=r"several values of criterion \(safe, polite\)"):
        interaction_matrix(make_interactions(("safe", "polite"), 3))
    contexts = pd.concat([PAIRS.assign(context="alone"), PAIRS.assign(context="within", interaction=0.5)])
    with pytest.raises(ValueError, match=r"several values of context \(alone, within\)"):
        interaction_matrix(contexts)
    chosen = interaction_matrix(contexts, context="within")
    assert np.nanmin(np.asarray(heat(chosen)[0].z, dtype=float)) == 0.5
    assert "all others of the set written" in plain(chosen.layout.annotations[-1].text.replace("<br>", " "))
    figure = interaction_matrix(PAIRS.drop(index=PAIRS[PAIRS["outcome"] == "gap"].index[0]), outcome="gap")
    assert "not measured" in figure.layout.annotations[-1].text.replace("<br>", " ")


# -- agreement --------------------------------------------------------------------------------------------------------


def test_agreement_lists_causal_measures_before_the_line():
    figure = agreement_matrix(AGREEMENT, criterion="polite")
    assert [style.name for style in MEASURES.values()] == list(figure.layout.yaxis.ticktext)
    causal = sum(style.causal for style in MEASURES.values())
    assert {(shape.x0, shape.y0) for shape in figure.layout.shapes} == {(causal - 0.5, 0), (0, causal - 0.5)}
    z, keys = np.asarray(heat(figure)[0].z, dtype=float), list(MEASURES)
    for row in AGREEMENT.query("criterion == 'polite' and outcome == 'probability'").to_dict("records"):
        a, b = keys.index(row["measure_a"]), keys.index(row["measure_b"])
        assert z[a, b] == z[b, a] == row["spearman"]
        assert (
            f"interval {signed(row['ci_low'])} to {signed(row['ci_high'])}, n = 20 heads"
            in heat(figure)[0].hovertext[a][b]
        )


@pytest.mark.slow
def test_agreement_over_criteria_is_their_mean_or_the_pooled_row():
    figure = agreement_matrix(AGREEMENT)
    rows = AGREEMENT.query("outcome == 'probability' and measure_a == 'injection' and measure_b == 'shapley'")
    i, j = list(MEASURES).index("injection"), list(MEASURES).index("shapley")
    assert heat(figure)[0].z[i][j] == pytest.approx(rows["spearman"].mean())
    assert all(criterion in heat(figure)[0].hovertext[i][j] for criterion in CRITERIA)
    assert "Mean over 3 criteria" in figure.layout.annotations[-1].text
    pooled = AGREEMENT[AGREEMENT["criterion"] == "safe"].assign(
        criterion="all", spearman=0.125, ci_low=-0.1, ci_high=0.3
    )
    figure = agreement_matrix(pd.concat([AGREEMENT, pooled]))
    assert heat(figure)[0].z[i][j] == 0.125 and "<b>" not in heat(figure)[0].text[i][j]


def test_every_measure_has_a_style_of_its_own_and_others_come_last():
    for distinct in ("symbol", "color", "name", "short"):
        assert len({getattr(style, distinct) for style in MEASURES.values()}) == len(MEASURES), distinct
    styles = measure_styles(["ours", "gradient", "shapley"])
    assert list(styles) == ["shapley", "gradient", "ours"] and styles["ours"].name == "ours"


# -- measures against each other --------------------------------------------------------------------------------------


def test_dots_are_the_heads_and_the_title_tells_the_rank_correlation():
    figure = measures_against_each_other(SCORES, x="direct", y="injection")
    for criterion, trace, note in zip(CRITERIA, figure.data, figure.layout.annotations, strict=False):
        part = SCORES[(SCORES["criterion"] == criterion) & (SCORES["outcome"] == "probability")]
        wide = part.pivot(index=["layer", "head"], columns="measure", values="score")
        assert list(trace.x) == wide["direct"].to_list() and list(trace.y) == wide["injection"].to_list()
        rho, found = (
            spearmanr(wide["direct"], wide["injection"]).statistic,
            spearman(*wide[["direct", "injection"]].to_numpy().T),
        )
        assert f"ρ = {rho:.2f} ({found.ci_low:.2f} to {found.ci_high:.2f})".replace("-", "−") in note.text
        ends = part[part["measure"] == "injection"]
        np.testing.assert_allclose(np.add(trace.y, trace.error_y.array), ends["ci_high"])
        np.testing.assert_allclose(
            np.subtract(trace.x, trace.error_x.arrayminus), part[part["measure"] == "direct"]["ci_low"]
        )


def test_heads_far_off_the_line_are_named():
    scores = SCORES[(SCORES["criterion"] == "safe") & SCORES["measure"].isin(["gradient", "shapley"])].copy()
    line = np.tile(np.arange(20) / 20, 2)
    for outcome in ("probability", "gap"):
        scores.loc[scores["outcome"] == outcome, "score"] = line + 0.01 * (-1) ** np.arange(40)
    scores.loc[(scores["measure"] == "shapley") & (scores["layer"] == 1) & (scores["head"] == 2), "score"] = 3.0
    figure = measures_against_each_other(scores)
    assert [note.text for note in figure.layout.annotations if re.fullmatch(r"L\d+H\d+", note.text)] == ["L1H2"]
    assert far_off(line[:20], 2 * line[:20] + 1).size == 0 and far_off(np.ones(5), np.arange(5.0)).size == 0


def test_too_few_heads_in_common_are_refused():
    few = SCORES[(SCORES["measure"] != "gradient") | (SCORES["layer"] * 5 + SCORES["head"] < 2)]
    with pytest.raises(ValueError, match="fewer than three heads have both 'gradient' and 'shapley'"):
        measures_against_each_other(few)


# -- steps of the search ----------------------------------------------------------------------------------------------


def test_the_slider_has_a_frame_for_every_stop_and_stands_at_the_last():
    figure = selection_steps(TRAJECTORY)
    slider = figure.layout.sliders[0]
    stops = [step.args[0][0] for step in slider.steps]
    assert stops == [frame.name for frame in figure.frames] == [str(step) for step in range(0, 100, 10)]
    assert slider.active == len(stops) - 1
    for frame, step in zip(figure.frames, range(0, 100, 10), strict=True):
        assert [figure.data[place].type for place in frame.traces] == ["heatmap"] * 3
        for criterion, trace in zip(CRITERIA, frame.data, strict=True):
            part = TRAJECTORY[(TRAJECTORY["criterion"] == criterion) & (TRAJECTORY["step"] == step)]
            table = part.pivot(index="layer", columns="head", values="probability").to_numpy()
            np.testing.assert_allclose(np.asarray(trace.z, dtype=float), table, atol=6e-5)
            assert any(f"{table.sum():.1f} heads expected" in note.text for note in frame.layout.annotations)
        assert len(frame.layout.annotations) == len(figure.layout.annotations)
    for place, trace in enumerate(heat(figure)):
        np.testing.assert_array_equal(np.asarray(trace.z), np.asarray(figure.frames[-1].data[place].z))
    assert (figure.layout.coloraxis.cmin, figure.layout.coloraxis.cmax) == (0, 1)


def test_many_steps_are_thinned_and_the_ends_kept():
    figure = selection_steps(make_trajectory(("safe",), range(500), 2, 2))
    stops = [int(frame.name) for frame in figure.frames]
    assert len(stops) == 40 and stops[0] == 0 and stops[-1] == 499 and stops == sorted(set(stops))


def test_the_play_button_needs_nothing_from_elsewhere():
    figure = selection_steps(TRAJECTORY)
    assert [button.method for button in figure.layout.updatemenus[0].buttons] == ["animate", "animate"]
    assert "http" not in json.dumps(figure.layout.updatemenus[0].to_plotly_json())


def test_chosen_heads_are_drawn_apart_and_named_in_order():
    figure = selection_trajectories(TRAJECTORY)
    last = TRAJECTORY[TRAJECTORY["step"] == 90]
    for index, criterion in enumerate(CRITERIA):
        axis = f"x{index + 1 if index else ''}"
        chosen = last[(last["criterion"] == criterion) & (last["probability"] > 0.5)].sort_values(
            "probability", ascending=False
        )
        names = [f"L{row.layer}H{row.head}" for row in chosen.itertuples()]
        assert [
            note.text for note in figure.layout.annotations if note.xref == f"{axis} domain" and note.showarrow
        ] == names
        lines = {trace.name: trace for trace in figure.data if trace.xaxis == axis}
        assert set(lines["chosen"].text) == set(names) and set(lines["chosen"].text).isdisjoint(
            lines["not chosen"].text
        )
        assert len(set(lines["not chosen"].text)) == 20 - len(names)
        ends = [y for x, y in zip(lines["chosen"].x, lines["chosen"].y, strict=True) if x == 90]
        assert sorted(ends) == sorted(chosen["probability"])


def test_names_that_do_not_fit_are_counted():
    many = make_trajectory(("safe",), (0, 1), 12, 12).assign(probability=0.9)
    figure = selection_trajectories(many)
    names = [note for note in figure.layout.annotations if note.showarrow]
    assert names[-1].text == f"{144 - (len(names) - 1)} more"


@pytest.mark.parametrize("seed", range(5))
def test_spread_places_keep_their_order_their_distance_and_their_room(seed):
    places = np.sort(np.random.default_rng(seed).uniform(0, 120, 10) ** (1 + seed % 2) / (120 ** (seed % 2))).tolist()
    moved = spread(places, 12, 120)
    assert all(b - a >= 12 - 1e-9 for a, b in itertools.pairwise(moved)) and moved[0] >= -1e-9 and moved[-1] <= 120
    assert spread([0.0, 50.0, 100.0], 12, 120) == [0.0, 50.0, 100.0]


# -- number of heads --------------------------------------------------------------------------------------------------


def test_lines_and_bands_are_the_rows_on_a_logarithmic_axis():
    figure = accuracy_by_heads(CURVE.sample(frac=1, random_state=1))
    assert places([0, 1, 2, 8]) == [-1, 0, 1, 3]
    lines = [trace for trace in figure.data if trace.mode == "lines+markers" and trace.x[0] is not None]
    bands = {(trace.legendgroup, trace.xaxis): trace for trace in figure.data if trace.fill == "toself"}
    assert len(lines) == 3 * 5 and len(bands) == 3 * 2  # of many rankings, the first and the random ones have bands
    for line in lines:
        criterion = re.search("<b>(.*?)</b>", line.hovertext[0])[1]
        ranking = next(key for key, style in measure_styles(CURVE["ranking"]).items() if style.name == line.name)
        rows = CURVE[(CURVE["criterion"] == criterion) & (CURVE["ranking"] == ranking)].sort_values("heads")
        assert list(line.x) == places(rows["heads"].to_list()) and list(line.y) == rows["accuracy"].to_list()
        if ranking in ("shapley", "random"):
            assert list(bands[line.legendgroup, line.xaxis].y) == [*rows["ci_high"], *rows["ci_low"][::-1]]


def test_a_few_rankings_all_have_bands():
    few = CURVE[CURVE["ranking"].isin(["shapley", "gradient", "random"])]
    assert sum(trace.fill == "toself" for trace in accuracy_by_heads(few).data) == 3 * 3


def test_the_axis_of_numbers_of_heads_holds_everything():
    figure = accuracy_by_heads(CURVE)
    assert figure.layout.xaxis.range[0] < -1 and figure.layout.yaxis.range[0] < CURVE["ci_low"].min()


def test_lines_can_be_told_apart_without_colour():
    figure = accuracy_by_heads(CURVE)
    entries = [trace for trace in figure.data if trace.showlegend is not False]
    assert len({(trace.line.dash, trace.marker.symbol) for trace in entries}) == len(entries) == 5


def test_a_set_as_it_was_chosen_is_a_symbol_with_its_interval_and_no_tick():
    chosen = CURVE[(CURVE["ranking"] == "shapley") & (CURVE["heads"] == 8)].assign(ranking="selected", heads=11)
    figure = accuracy_by_heads(pd.concat([CURVE, chosen]))
    trace = next(trace for trace in figure.data if trace.name == "Selected heads" and trace.x[0] is not None)
    assert list(trace.x) == places([11]) and trace.error_y.array[0] == pytest.approx(
        chosen["ci_high"].iloc[0] - trace.y[0]
    )
    assert "11" not in figure.layout.xaxis.ticktext and "8" in figure.layout.xaxis.ticktext


# -- numbers ----------------------------------------------------------------------------------------------------------


def test_numbers_have_a_true_minus_and_no_sign_at_zero():
    assert [compact(value, 2) for value in (-0.123, -0.001, 0.5, 1.5)] == ["−0.12", "0.00", "0.50", "1.50"]
    shortened = [compact(value, 2, short=True) for value in (-0.123, -0.001, 0.5, 0.996, -1, 10.5)]
    assert shortened == ["−.12", ".00", ".50", "1.0", "−1.0", "10.5"]
    assert [signed(value, digits=2) for value in (-0.123, -0.001, 0.5)] == ["−0.12", "0.00", "+0.50"]
    assert [digits_for(span) for span in (0.002, 0.03, 0.4, 2.0, 15.0)] == [4, 3, 2, 2, 1]


# -- more heads than can be drawn one by one ---------------------------------------------------------------------------


def test_of_more_lines_than_can_be_told_apart_the_rest_is_a_band():
    table = make_trajectory(("safe",), range(0, 50, 10), 12, 12)
    wide = table.pivot(index="step", columns=["layer", "head"], values="probability")
    figure = selection_trajectories(table, most=7)
    drawn = {trace.name: trace for trace in figure.data}
    for name, heads in (("chosen", wide.iloc[-1] > 0.5), ("not chosen", wide.iloc[-1] <= 0.5)):
        part = wide.loc[:, heads]
        best = part.iloc[-1].nlargest(7).index
        assert set(drawn[name].text) == {f"L{layer}H{head}" for layer, head in best}
        rest, band = part.drop(columns=best), drawn[f"{name}, rest"]
        assert list(band.y[:5]) == pytest.approx(rest.max(axis=1).to_list())
        assert list(band.y[5:]) == pytest.approx(rest.min(axis=1).to_list()[::-1])
    words = figure.layout.annotations[-1].text.replace("<br>", " ")
    assert "the 7 most probable chosen heads and the 7 most probable others; bands: the rest" in words
    whole = selection_trajectories(table[table["layer"] < 3])
    assert "rest" not in {trace.name for trace in whole.data} and "bands" not in whole.layout.annotations[-1].text


def test_a_crowd_of_heads_has_one_dot_where_many_would_cover_each_other():
    table = make_attributions(("safe",), ("gradient", "shapley"), ("probability",), 30, 30)
    figure = measures_against_each_other(table)
    (dots,) = (trace for trace in figure.data if trace.name == "heads")
    scores = table.pivot(index=["layer", "head"], columns="measure", values="score")
    drawn = set(zip(dots.x, dots.y, strict=True))
    every = set(zip(scores["gradient"], scores["shapley"], strict=True))
    assert len(dots.x) == len(drawn) < len(every) == 900 and drawn <= every
    reach = np.ptp(scores, axis=0).to_numpy() * 3 / [520, 190]  # a little more than the side of a square
    for dot in every - drawn:
        assert min(np.abs((np.array(dot) - other) / reach).max() for other in map(np.array, drawn)) <= 1
    named = {note.text for note in figure.layout.annotations if re.fullmatch(r"L\d+H\d+", note.text or "")}
    assert named
    assert sum(length > 0 for length in dots.error_y.array) == len(named)
    assert "900 heads, intervals of the named ones" in figure.layout.annotations[-1].text


def test_of_many_heads_the_matrix_has_those_with_the_largest_interactions_and_says_so():
    table = make_interactions(("safe",), 30, 6, 8)
    gaps = table[table["outcome"] == "gap"]
    order = gaps.reindex(gaps["interaction"].abs().sort_values(ascending=False).index)
    first = dict.fromkeys(
        (layer, head)
        for row in order.itertuples()
        for layer, head in ((row.layer_a, row.head_a), (row.layer_b, row.head_b))
    )
    with themed(COLUMN):
        figure = interaction_matrix(table, most=11)
        assert len(interaction_matrix(table).layout.yaxis.ticktext) == 20
    assert list(figure.layout.yaxis.ticktext) == [f"L{layer}H{head}" for layer, head in sorted([*first][:11])]
    assert "The 11 heads with the largest ones, of 30." in figure.layout.annotations[-1].text.replace("<br>", " ")
