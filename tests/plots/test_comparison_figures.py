"""Figures of names beside names say what their tables say: overlaps, transfer, stability, depth, cosines."""

from __future__ import annotations

import itertools
import re

import numpy as np
import pandas as pd
import plotly.io
import pytest
from plots.synthetic_attribution import (
    make_cosines,
    make_depth,
    make_memberships,
    make_overlap,
    make_stability,
    make_transfer,
)
from plots.synthetic_results import make_heads
from scipy.cluster.hierarchy import leaves_list, linkage

from arm_lens.heads import heads_frame
from arm_lens.plots.comparison_matrices import correlation_matrix, mean_cosines, overlap_matrix, transfer_matrix
from arm_lens.plots.stability import depth_profile, stability_by_group
from arm_lens.plots.upset import intersections_of, memberships_of, upset

NAMES = ("safe", "polite", "positive", "list")
SETS = make_memberships(NAMES)
OVERLAP = make_overlap(SETS)
TRANSFER = make_transfer(NAMES)
STABILITY = make_stability(NAMES)
DEPTH = make_depth()
COSINES = make_cosines(NAMES, 3, 4)
CORRELATION = OVERLAP[["a", "b"]].assign(spearman=[-0.8, -0.1, 0.0, 0.3, 0.5, 0.9], n=48)
CORRELATION = CORRELATION.assign(ci_low=CORRELATION["spearman"] - 0.2, ci_high=CORRELATION["spearman"] + 0.2)
FIGURES = {
    "overlap": (overlap_matrix, OVERLAP, "a"),
    "correlation": (correlation_matrix, CORRELATION, "a"),
    "transfer": (transfer_matrix, TRANSFER, "used_for"),
    "upset": (upset, heads_frame(SETS), "layer"),
    "stability": (stability_by_group, STABILITY, "group"),
    "depth": (depth_profile, DEPTH, "name"),
    "cosines": (mean_cosines, COSINES, "a"),
}
every_figure = pytest.mark.parametrize("make, frame, column", FIGURES.values(), ids=FIGURES)


def heat(figure):
    return [trace for trace in figure.data if trace.type == "heatmap"]


def plain(text: str) -> str:
    return re.sub("<[^>]*>", "", text)


@every_figure
def test_bad_tables_are_refused_and_good_ones_left_as_they_were(make, frame, column):
    with pytest.raises(ValueError, match="is empty"):
        make(frame.iloc[:0])
    with pytest.raises(ValueError, match=f"lacks the column '{column}'"):
        make(frame.drop(columns=column))
    before = frame.copy()
    make(frame)
    pd.testing.assert_frame_equal(frame, before)


@every_figure
def test_names_are_no_markup(make, frame, column):
    hostile = "<img src=x onerror=alert(1)> $x$"
    there = [
        c for c in ("a", "b", "name", "group", "criterion", "heads_of", "used_for", "means_of") if c in frame.columns
    ]
    text = plotly.io.to_json(make(frame.replace({column: {"safe": hostile, "judge-6": hostile} for column in there})))
    text = text.replace("\\u003c", "<")
    assert "<img" not in text and "$x$" not in text and "&lt;img src=x" in text


# -- overlaps ---------------------------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("value", ["jaccard", "overlap", "shared"])
def test_overlaps_are_symmetric_with_the_sizes_on_the_diagonal(value):
    frame = OVERLAP.assign(p_holm=[0.01, 0.2, 0.049, 0.05, 1.0, 0.001])
    figure = overlap_matrix(frame, value=value)
    trace, sizes = figure.data
    z = np.asarray(trace.z, dtype=float)
    np.testing.assert_array_equal(z, z.T)
    for row in frame.to_dict("records"):
        a, b = NAMES.index(row["a"]), NAMES.index(row["b"])
        assert z[a, b] == row[value]
        assert ("<b>" in trace.text[a][b]) == ("<b>" in trace.text[b][a]) == (row["p_holm"] < 0.05)
        for told in (
            f"by chance {row['jaccard_chance']:.3f}",
            f"by chance {row['expected']:.2f}",
            f"p = {row['p_value']:.2g}",
        ):
            assert told in trace.hovertext[a][b]
    own = {name: len(heads) for name, heads in SETS.items()}
    assert list(zip(sizes.x, sizes.y, sizes.text, strict=True)) == [
        (i, i, str(own[name])) for i, name in enumerate(NAMES)
    ]


def test_the_tree_gives_the_order_and_joins_at_its_distances():
    tree = linkage(1 - OVERLAP["jaccard"].to_numpy(), "average")
    figure = overlap_matrix(OVERLAP, linkage=tree, names=NAMES)
    order = [NAMES[leaf] for leaf in leaves_list(tree)]
    assert list(figure.layout.yaxis.ticktext) == list(figure.layout.xaxis.ticktext) == order
    drawn = figure.data[-1]
    joints = [
        (drawn.x[at + 1], drawn.y[at], drawn.y[at + 3]) for at in range(0, len(drawn.x), 5)
    ]  # distance, two branches
    assert sorted(distance for distance, _, _ in joints) == pytest.approx(sorted(tree[:, 2]))
    assert {y for x, y in zip(drawn.x, drawn.y, strict=True) if x == 0} == set(range(4))
    _, one, two = min(joints)
    assert {order[int(one)], order[int(two)]} == {NAMES[int(leaf)] for leaf in tree[0, :2]}
    assert drawn.xaxis == "x2" and drawn.yaxis == "y"


def test_an_order_can_be_given_and_must_be_complete():
    figure = overlap_matrix(OVERLAP, order=NAMES[::-1])
    assert list(figure.layout.yaxis.ticktext) == list(NAMES[::-1])
    with pytest.raises(ValueError, match="'order' must hold the names"):
        overlap_matrix(OVERLAP, order=NAMES[:3])
    with pytest.raises(ValueError, match="a linkage needs 'names'"):
        overlap_matrix(OVERLAP, linkage=np.zeros((3, 4)))
    with pytest.raises(ValueError, match="several rows of a 'safe', b 'polite'"):
        overlap_matrix(pd.concat([OVERLAP, OVERLAP]))


def test_an_overlap_that_is_not_defined_is_crossed_out():
    figure = overlap_matrix(OVERLAP.assign(overlap=[np.nan, *OVERLAP["overlap"][1:]]), value="overlap")
    cross = next(trace for trace in figure.data if trace.type == "scatter" and trace.mode == "markers")
    assert set(zip(cross.x, cross.y, strict=True)) == {(0, 1), (1, 0)}


def test_correlations_are_centred_at_zero_and_bold_where_told_apart():
    trace = heat(correlation_matrix(CORRELATION))[0]
    for row in CORRELATION.to_dict("records"):
        a, b = NAMES.index(row["a"]), NAMES.index(row["b"])
        assert trace.z[a][b] == trace.z[b][a] == row["spearman"]
        assert ("<b>" in trace.text[a][b]) == (abs(row["spearman"]) > 0.2)
        assert plain(trace.text[a][b]) == f"{row['spearman']:.2f}".replace("-", "−").replace("−0.00", "0.00")
    axis = correlation_matrix(CORRELATION).layout.coloraxis
    assert (axis.cmin, axis.cmax) == (-1, 1)


# -- transfer ---------------------------------------------------------------------------------------------------------


def test_transfer_has_a_matrix_for_either_kind_of_means_and_controls_below():
    figure = transfer_matrix(TRANSFER)
    rows = [*NAMES, "", "random heads", "none"]
    assert list(figure.layout.yaxis.ticktext) == rows and len(heat(figure)) == 2
    assert (figure.layout.coloraxis.cmin, figure.layout.coloraxis.cmax) == (0, 1)  # chance in the middle
    table = TRANSFER.set_index(["heads_of", "used_for", "means_of"])["accuracy"]
    for trace, carried in zip(heat(figure), (False, True), strict=True):
        for (i, name), (j, used_for) in itertools.product(enumerate(rows), enumerate(NAMES)):
            z = trace.z[i][j]
            if not name:
                assert np.isnan(z)
                continue
            means = name if carried and name in NAMES else used_for
            assert z == table[name, used_for, means]
            assert plain(trace.text[i][j]) == f"{z:.2f}" and f"means of {means}" in trace.hovertext[i][j]


def test_own_heads_are_framed_also_where_only_some_are_used():
    figure = transfer_matrix(TRANSFER[TRANSFER["used_for"].isin(["polite", "list"])])
    assert list(figure.layout.yaxis.ticktext)[:4] == ["polite", "list", "safe", "positive"]
    framed = {(shape.x0 + 0.5, shape.y0 + 0.5) for shape in figure.layout.shapes}
    assert framed == {(0, 0), (1, 1)}


def test_tables_of_both_kinds_of_means_can_be_put_together():
    own = TRANSFER[(TRANSFER["means_of"] == TRANSFER["used_for"])]
    taken = TRANSFER[
        (TRANSFER["means_of"] == TRANSFER["heads_of"]) | TRANSFER["heads_of"].isin(["random heads", "none"])
    ]
    assert len(heat(transfer_matrix(own))) == 1
    both = transfer_matrix(pd.concat([own, taken]))
    for one, two in zip(heat(both), heat(transfer_matrix(TRANSFER)), strict=True):
        np.testing.assert_array_equal(np.asarray(one.z), np.asarray(two.z))
    with pytest.raises(ValueError, match="several rows of heads_of 'safe'"):
        transfer_matrix(pd.concat([own, own.assign(accuracy=0.123)]))


# -- UpSet ------------------------------------------------------------------------------------------------------------


def test_intersections_are_those_of_python_sets():
    sets = memberships_of(make_memberships())
    found = intersections_of(sets)
    for one in found:
        inside = set.intersection(*(sets[name] for name in one.names))
        outside = set().union(*(sets[name] for name in sets if name not in one.names))
        assert set(one.heads) == inside - outside and one.heads
    counted = [head for one in found for head in one.heads]
    assert len(counted) == len(set(counted)) and set(counted) == set().union(*sets.values())
    order = [(-len(one.heads), len(one.names)) for one in found]
    assert order == sorted(order)


def test_bars_dots_and_lines_are_the_intersections():
    figure = upset(SETS)
    sets = memberships_of(SETS)
    found = intersections_of(sets)
    traces = {trace.name: trace for trace in figure.data}
    assert list(traces["intersections"].y) == [len(one.heads) for one in found]
    assert list(traces["set sizes"].x) == [len(heads) for heads in sets.values()]
    expected = {(x, NAMES.index(name)) for x, one in enumerate(found) for name in one.names}
    present = set(zip(traces["present"].x, traces["present"].y, strict=True))
    absent = set(zip(traces["absent"].x, traces["absent"].y, strict=True))
    assert present == expected and present.isdisjoint(absent) and len(present | absent) == 4 * len(found)
    line = next(trace for trace in figure.data if trace.type == "scatter" and trace.mode == "lines")
    for x, one in enumerate(found):
        rows = [y for at, y in zip(line.x, line.y, strict=True) if at == x]
        assert rows == [min(NAMES.index(n) for n in one.names), max(NAMES.index(n) for n in one.names)]
        for layer, head in one.heads:
            assert f"L{layer}H{head}" in traces["intersections"].hovertext[x]


def test_a_head_counts_where_half_of_the_seeds_selected_it():
    heads = make_heads(NAMES, seeds=(0, 1), n_layers=3, n_heads=4)
    sets = memberships_of(heads)
    for name in NAMES:
        counts = {}
        for row in heads[heads["criterion"] == name].to_dict("records"):
            counts[row["layer"], row["head"]] = counts.get((row["layer"], row["head"]), 0) + row["selected"]
        assert sets[name] == {head for head, count in counts.items() if count >= 1}
    assert "at least half of the 2 searches" in upset(heads).layout.annotations[-1].text


def test_intersections_without_room_are_counted():
    every = intersections_of(memberships_of(make_memberships()))
    figure = upset(make_memberships(), most=5)
    bars = next(trace for trace in figure.data if trace.name == "intersections")
    assert list(bars.y) == [len(one.heads) for one in every[:5]]
    assert f"{len(every) - 5} further intersections" in figure.layout.annotations[-1].text
    with pytest.raises(ValueError, match="most is 0"):
        upset(SETS, most=0)


def test_a_name_without_heads_is_there_and_nothing_selected_is_refused():
    heads = make_heads(("safe", "polite"), seeds=(0,))
    heads.loc[heads["criterion"] == "polite", "selected"] = False
    assert memberships_of(heads)["polite"] == set()
    assert next(t for t in upset(heads).data if t.name == "set sizes").x[1] == 0
    with pytest.raises(ValueError, match="no head is selected"):
        upset(heads.assign(selected=False))


# -- stability, depth, cosines ----------------------------------------------------------------------------------------


def test_stability_draws_both_indices_with_intervals_and_chance():
    figure = stability_by_group(STABILITY)
    traces = {trace.name: trace for trace in figure.data}
    for value, low, high in (("jaccard", "ci_low", "ci_high"), ("nogueira", "nogueira_low", "nogueira_high")):
        assert list(traces[value].x) == STABILITY[value].to_list()
        np.testing.assert_allclose(np.subtract(traces[value].x, traces[value].error_x.arrayminus), STABILITY[low])
        np.testing.assert_allclose(np.add(traces[value].x, traces[value].error_x.array), STABILITY[high])
    assert list(traces["by chance"].x) == STABILITY["jaccard_chance"].to_list()
    assert all("10 sets" in text for text in figure.layout.yaxis.ticktext)


def test_a_group_of_one_set_has_no_dot_and_the_axis_holds_negative_indices():
    columns = ["jaccard", "ci_low", "ci_high", "jaccard_chance", "nogueira", "nogueira_low", "nogueira_high"]
    frame = STABILITY.copy()
    frame.loc[0, columns] = np.nan
    frame.loc[1, "nogueira_low"] = -0.4
    figure = stability_by_group(frame)
    assert "unknown" in figure.data[0].hovertext[0] and "nan" not in figure.data[0].hovertext[0]
    assert figure.layout.xaxis2.range[0] < -0.4


@pytest.mark.parametrize("count", [3, 6])
def test_depth_profiles_are_the_shares_by_relative_depth(count):
    frame = make_depth(tuple(f"model {index}" for index in range(count)))
    figure = depth_profile(frame)
    for name in frame["name"].unique():
        rows = frame[frame["name"] == name]
        lines = [trace for trace in figure.data if trace.name == name]
        assert len(lines) == (1 if count == 3 else count)  # its own panel, and in grey behind the others
        for line in lines:
            assert list(line.x) == rows["depth"].to_list() and list(line.y) == rows["share"].to_list()
        assert sum(line.mode == "lines+markers" for line in lines) == 1
    shown = [trace for trace in figure.data if trace.mode == "lines+markers"]
    assert count > 4 or len({(trace.marker.symbol, trace.line.dash) for trace in shown}) == count


def test_cosines_are_means_over_heads_and_told_by_layer():
    holes = COSINES.assign(cosine=COSINES["cosine"].where(COSINES.index % 7 != 0))
    trace = heat(mean_cosines(holes))[0]
    for a, b in itertools.combinations(NAMES, 2):
        part = holes[(holes["a"] == a) & (holes["b"] == b)]
        values = [x for x in part["cosine"] if not np.isnan(x)]
        i, j = NAMES.index(a), NAMES.index(b)
        assert trace.z[i][j] == trace.z[j][i] == pytest.approx(sum(values) / len(values))
        assert f"mean of {len(values)} heads" in trace.hovertext[i][j]
        first = [x for x, layer in zip(part["cosine"], part["layer"], strict=True) if layer == 0 and not np.isnan(x)]
        assert f"layer 0: {sum(first) / len(first):+.3f}".replace("-", "−") in trace.hovertext[i][j]
