"""Tables as strangers make them: concatenated, filtered, turned round. A figure is right, or an error says what is wrong."""

from __future__ import annotations

import itertools

import numpy as np
import pandas as pd
import pytest
from plots import synthetic_attribution as attribution
from plots import synthetic_benchmark as benchmark
from plots import synthetic_cases as cases
from plots import synthetic_results as results

from arm_lens import plots
from arm_lens.plots.theme import COLUMN, OTHER_SYMBOLS, PAGE, themed


def captions(figure):
    return " | ".join(note.text.replace("<br>", " ") for note in figure.layout.annotations)


def heads(searches, chosen):
    """Rows of a model of 2 x 2 heads; ``chosen`` tells (search, layer, head)."""
    rows = [
        ("a", *search, layer, head, chosen(search, layer, head), 0.5)
        for search, layer, head in itertools.product(searches, range(2), range(2))
    ]
    return pd.DataFrame(rows, columns=["criterion", "sample", "seed", "layer", "head", "selected", "probability"])


# -- rows and their labels ---------------------------------------------------------------------------------------------


def test_the_labels_of_rows_make_no_difference():
    scores = cases.scores()
    scores = scores[(scores["outcome"] == "probability") & (scores["criterion"] == "safe")]
    parts = [
        scores[scores["measure"] == one].reset_index(drop=True)
        for one in ("shapley", "injection", "gradient", "direct")
    ]
    one, two = (plots.attribution_maps(pd.concat(parts, ignore_index=whole)) for whole in (True, False))
    assert captions(one) == captions(two) and one == two


@pytest.mark.parametrize(
    "draw, table, column",
    [
        (lambda table: plots.attribution_maps(table), cases.of_measure, "criterion"),
        (plots.accuracy_by_heads, attribution.make_curve, "criterion"),
        (plots.training_curves, cases.history, "criterion"),
        (plots.accuracy_by_examples, cases.study, "judge"),
        (plots.accuracy_by_examples, cases.study, "subset"),
        (plots.selection_trajectories, attribution.make_trajectory, "criterion"),
    ],
)
def test_names_that_are_numbers_are_drawn_as_their_texts(draw, table, column):
    frame = table()
    names = {name: index for index, name in enumerate(frame[column].unique())}
    numbers = draw(frame.assign(**{column: frame[column].map(names)}))
    texts = draw(frame.assign(**{column: frame[column].map(lambda name: str(names[name]))}))
    assert numbers == texts and len(numbers.data) > 1


def test_whole_numbers_that_came_as_floats_are_written_as_whole_ones():
    table = cases.of_measure().astype({"layer": float, "head": float})
    assert list(plots.head_matrix(table).layout.yaxis.ticktext) == list(
        plots.head_matrix(cases.of_measure()).layout.yaxis.ticktext
    )


# -- searches and models -----------------------------------------------------------------------------------------------


def test_searches_are_told_apart_by_their_sample_too():
    table = heads(itertools.product(range(3), range(2)), lambda search, layer, head: layer == head)
    figure = plots.selected_heads(table)
    assert "2 of 4 heads" in captions(figure) and "2.0 heads expected" in captions(plots.selection_probabilities(table))
    assert "sample 2, seed 1: " in figure.data[0].hovertext[0][0]
    fewer = heads(itertools.product(range(3), range(2)), lambda search, layer, head: layer == head <= search[0])
    unknown = plots.selected_heads(fewer.assign(sample=fewer["sample"].where(fewer["sample"] > 0)))
    assert "1 to 2 of 4 heads" in captions(unknown)
    few = plots.selected_heads(table[table["sample"] < 2])
    bar = few.layout.coloraxis.colorbar
    assert bar.ticktext[-1] == "4 of 4" and bar.title.text.startswith("searches with<br>the head")
    history = pd.DataFrame(
        [("a", sample, 0, step, float(sample)) for sample, step in itertools.product(range(3), range(4))],
        columns=["criterion", "sample", "seed", "step", "reward"],
    )
    names = [trace.name for trace in plots.training_curves(history).data]
    assert names == ["lowest to highest of the searches", "mean over searches"]


@pytest.mark.parametrize("draw", [plots.selected_heads, plots.selection_probabilities, plots.upset])
def test_tables_of_chosen_heads_only_and_of_several_models_are_refused(draw):
    table = heads(
        [(0, 0), (0, 1), (0, 2)],
        lambda search, layer, head: layer == head == 0 or (search[1], layer, head) == (0, 1, 1),
    )
    with pytest.raises(ValueError, match="give a row for every head"):
        draw(table[table["selected"]])
    models = [results.make_heads((name,), (0,), *size) for name, size in (("big", (6, 8)), ("small", (2, 2)))]
    with pytest.raises(ValueError, match="has 4 rows for small, seed 0, and the largest model in it has 48 heads"):
        draw(pd.concat(models))


def test_a_search_that_has_ended_stays_as_it_ended():
    table = attribution.make_trajectory(("safe", "polite"), steps=range(0, 50, 10))
    figure = plots.selection_steps(table[(table["criterion"] == "safe") | (table["step"] < 30)])
    last = table[(table["criterion"] == "polite") & (table["step"] == 20)].set_index(["layer", "head"])["probability"]
    z = np.array(figure.data[1].z, dtype=float)
    assert not np.isnan(z).any() and all(z[place] == pytest.approx(value, abs=1e-4) for place, value in last.items())
    assert f"{last.sum():.1f} heads expected" in captions(figure) and "stays as it ended" in captions(figure)


# -- pairs -------------------------------------------------------------------------------------------------------------


def turned(table, one="a", two="b"):
    return table.rename(columns={one: two, two: one})[table.columns]


def agreement(rows):
    columns = ["criterion", "outcome", "measure_a", "measure_b", "spearman", "ci_low", "ci_high", "n"]
    return pd.DataFrame([(criterion, "probability", *rest) for criterion, *rest in rows], columns=columns)


def test_a_pair_counts_the_same_in_both_orders():
    table = agreement(
        [("c1", "shapley", "gradient", 0.9, 0.8, 0.95, 48), ("c2", "gradient", "shapley", 0.1, -0.1, 0.2, 48)]
    )
    z = np.array(plots.agreement_matrix(table).data[0].z, dtype=float)
    assert z[0, 1] == z[1, 0] == pytest.approx(0.5)


def test_a_pair_in_both_orders_is_refused():
    with pytest.raises(ValueError, match="shapley and gradient are a pair twice, in both orders, of criterion c1"):
        plots.agreement_matrix(
            agreement(
                [("c1", "shapley", "gradient", 0.9, 0.8, 0.95, 48), ("c1", "gradient", "shapley", 0.1, 0.0, 0.2, 48)]
            )
        )
    for draw, table in (
        (plots.correlation_matrix, cases.correlation()),
        (plots.overlap_matrix, cases.overlap()),
        (plots.mean_cosines, attribution.make_cosines()),
    ):
        with pytest.raises(ValueError, match="twice, in both orders"):
            draw(pd.concat([table, turned(table)]))
    comparisons = cases.comparisons()
    lead = comparisons[(comparisons["judge"] == "arm_reinforce") | (comparisons["other"] == "arm_reinforce")]
    with pytest.raises(ValueError, match=r"arm_reinforce and .* twice, in both orders"):
        plots.differences(pd.concat([lead, turned(lead, "judge", "other")]))


def test_a_mean_over_criteria_says_over_how_many():
    table = agreement([
        ("c1", "shapley", "gradient", 0.9, 0.8, 0.95, 48), ("c2", "shapley", "gradient", np.nan, np.nan, np.nan, 48),
        ("c1", "shapley", "direct", 0.5, 0.4, 0.6, 48), ("c2", "shapley", "direct", 0.5, 0.4, 0.6, 48),
    ])  # fmt: skip
    figure = plots.agreement_matrix(table)
    assert (
        "Mean over 1 to 2 criteria" in captions(figure)
        and "mean over 1 criteria +0.9000" in figure.data[0].hovertext[0][1]
    )
    assert "×: not measured." in captions(figure)  # gradient against direct


def test_what_has_no_known_interval_is_neither_sure_nor_unsure():
    table = attribution.make_interactions(("safe",), 40, 80, 64)
    figure = plots.interaction_matrix(table[table["outcome"] == "gap"].assign(ci_low=np.nan, ci_high=np.nan))
    assert "interval" not in captions(figure) and "∘" not in set(np.array(figure.data[0].text).ravel())


# -- transfer ----------------------------------------------------------------------------------------------------------


def transfer(*rows):
    columns = ["heads_of", "used_for", "means_of", "accuracy", "ci_low", "ci_high", "n"]
    return pd.DataFrame([(*row, row[3] - 0.1, row[3] + 0.1, 10) for row in rows], columns=columns)


OWN = [("a", "a", "a", 0.9), ("b", "b", "b", 0.9)]


def test_a_control_with_several_means_is_drawn_with_those_of_the_matrix():
    controls = [("none", "a", "a", 0.5), ("none", "a", "none", 0.3), ("none", "b", "b", 0.5)]
    for rows in (controls, controls[::-1]):
        figure = plots.transfer_matrix(transfer(*OWN, ("a", "b", "b", 0.7), *rows))
        assert np.array(figure.data[0].z, dtype=float)[-1].tolist() == [0.5, 0.5] and "×: not measured." in captions(
            figure
        )


def test_rows_that_have_no_place_in_the_matrix_are_refused():
    with pytest.raises(ValueError, match="with the means of 'c': neither's"):
        plots.transfer_matrix(transfer(*OWN, ("a", "b", "c", 0.1)))
    with pytest.raises(ValueError, match="several rows of heads_of 'a', used_for 'a', means_of 'a'"):
        plots.transfer_matrix(pd.concat([transfer(*OWN), transfer(*OWN).assign(n=99999)]))


# -- head cards --------------------------------------------------------------------------------------------------------


def test_patches_stand_where_they_are_in_any_order_and_all_are_needed():
    rows, pictures = attribution.make_patches()
    one, two = (plots.image_attention_figure(table, pictures) for table in (rows, rows.sort_values("weight")))
    for trace in one.data:
        [same] = [other for other in two.data if np.array_equal(other.z, trace.z)]
        assert np.array_equal(same.x, trace.x) and np.array_equal(same.y, trace.y)
    with pytest.raises(ValueError, match="lacks the weight of row 3, column 0 of"):
        plots.image_attention_figure(rows[rows["row"] != 3], pictures)


def test_a_head_card_is_of_one_head():
    attention, tokens, scores = cases.card()
    every = cases.scores()
    with pytest.raises(ValueError, match="several rows of criterion"):
        plots.head_card_figure(attention, tokens, every[every["measure"] == "injection"], title="one")
    with pytest.raises(ValueError, match="several rows of example"):
        plots.head_card_figure(pd.concat([attention, attention]), tokens, scores, title="one")
    with pytest.raises(ValueError, match="direction 'up', which is promoted or suppressed"):
        plots.head_card_figure(attention, tokens.assign(direction="up"), scores, title="one")
    bars = [plots.head_card_figure(attention, some, scores, title="one") for some in (tokens, tokens.iloc[::-1])]
    one, two = (next(trace for trace in figure.data if trace.name == "tokens") for figure in bars)
    assert np.array_equal(one.x, two.x) and one.hovertext == two.hovertext


# -- judges ------------------------------------------------------------------------------------------------------------


def test_the_brier_score_is_of_the_items_in_the_bins():
    bins, every = benchmark.make_calibration(("sav",)), cases.of("criteria")
    one = bins["subset"].iloc[0]
    figure = plots.reliability(bins[bins["subset"] == one], summary=every)
    [brier] = every[(every["subset"] == one) & (every["judge"] == "sav")]["brier"]
    assert f"Brier {brier:.3f}" in captions(figure)
    with pytest.raises(ValueError, match="has no benchmark 'criteria'; it has another"):
        plots.reliability(bins, summary=every.assign(benchmark="another"))
    with pytest.raises(ValueError, match=r"several rows of .*choose n_examples"):
        plots.reliability(bins, summary=benchmark.make_summary(n=60).assign(benchmark="criteria"))


def test_an_interval_of_which_a_part_is_unknown_is_unknown():
    bins = benchmark.make_calibration(("sav",))
    last = bins[bins["bin"] == bins["bin"].max()].copy()
    last.loc[last.index[0], ["ci_low", "ci_high"]] = np.nan
    assert "interval unknown" in plots.reliability(last).data[1].hovertext[0]
    last.loc[last.index[1], "confidence"] = np.nan
    with pytest.raises(ValueError, match=r"items in bin .* and no accuracy or confidence"):
        plots.reliability(last)


def test_responses_without_a_label_are_refused():
    items = cases.items().astype({"label": object})
    items.loc[items.index[3], "label"] = None
    for draw in (plots.reward_histograms, plots.roc_curves):
        with pytest.raises(ValueError, match=r"the column 'label' of the table 'items' .* holds nothing in row 3"):
            draw(items)


def test_two_units_are_not_put_in_one_line():
    study = cases.study().assign(unit="response")
    with pytest.raises(ValueError, match="several values of unit"):
        plots.accuracy_by_examples(pd.concat([study, study.assign(unit="pair", accuracy=0.2)]))
    rows = cases.rows()
    rows = rows[rows["judge"] == rows["judge"].iloc[0]].assign(unit="response")
    summary = results.make_summary(rows).assign(unit="response")
    both = pd.concat([rows, rows.assign(unit="pair", accuracy=0.11)])
    assert plots.accuracy_by_subset(summary, rows=both) == plots.accuracy_by_subset(summary, rows=rows)


def test_dots_and_lines_are_within_their_axes():
    low = cases.of("criteria", ("sav", "length")).assign(accuracy=0.1, ci_low=np.nan, ci_high=np.nan)
    assert plots.accuracy_by_subset(low).layout.xaxis.range[0] < 0.1
    stability = attribution.make_stability(("x", "y")).assign(nogueira=[-0.3, 0.5], nogueira_low=[np.nan, 0.4])
    assert plots.stability_by_group(stability).layout.xaxis2.range[0] < -0.3


def test_any_number_of_judges_that_are_not_ours_is_drawn():
    table = cases.of("criteria", ("sav",))
    names = [f"mine {number}" for number in range(2 * len(OTHER_SYMBOLS))]
    plots.accuracy_by_judge(pd.concat([table.assign(judge=name) for name in names]))


# -- what is left out is said ------------------------------------------------------------------------------------------


def test_what_a_figure_leaves_out_stands_in_its_caption():
    scores = cases.scores()
    two = scores[
        scores["criterion"].isin(["safe", "polite"]) & scores["measure"].isin(["shapley", "injection", "gradient"])
    ]
    lacking = two[~((two["criterion"] == "polite") & (two["measure"] == "gradient"))]
    polite = captions(plots.attribution_maps(lacking, criterion="polite"))
    assert "on no outcome" not in polite and "Gradient" not in polite
    assert "Not measured for polite." in captions(plots.attribution_maps(lacking, measure="gradient"))
    few = two[
        ~((two["criterion"] == "polite") & (two["measure"] == "gradient") & ((two["layer"] > 0) | (two["head"] > 1)))
    ]
    assert "Fewer than three heads have both for polite." in captions(plots.measures_against_each_other(few))
    safe = two[(two["outcome"] == "probability") & ~((two["criterion"] == "safe") & (two["measure"] == "injection"))]
    trusted = captions(plots.attribution_maps(safe, measure="gradient"))
    assert "with Shapley value" in trusted and "with Injected alone" in trusted


def visible(figure):
    """Texts beside the axes, above the panels and in the legend."""
    yield from (note.text for note in figure.layout.annotations)
    for axis in (*figure.select_xaxes(), *figure.select_yaxes()):
        yield from axis.ticktext or ()
    yield from (trace.name for trace in figure.data if trace.showlegend is not False and trace.name)


def test_long_names_that_begin_alike_are_told_apart():
    names = tuple(
        f"the reply answers the question that was asked, and nothing else but it, as number {one}" for one in (7, 8)
    )
    tables = {
        plots.head_matrix: cases.named(cases.of_measure(), names),
        plots.upset: cases.named(cases.heads(), names),
        plots.depth_profile: attribution.make_depth(names, (6, 6)),
        plots.attribution_maps: cases.named(cases.of_measure(), names),
        plots.training_curves: cases.named(cases.history(), names),
        plots.accuracy_by_heads: cases.named(attribution.make_curve(), names, "ranking"),
        plots.accuracy_by_subset: cases.named(cases.of("criteria"), names, "subset"),
        plots.accuracy_by_judge: cases.named(cases.of("criteria"), names, "judge"),
    }
    for draw, table in tables.items():
        with themed(PAGE if draw in (plots.accuracy_by_judge, plots.accuracy_by_subset) else COLUMN):
            texts = " ".join(visible(draw(table))).replace("<br>", " ").replace("</b>", "")
        assert "number 7" in texts and "number 8" in texts, draw.__name__


def test_axes_with_one_name_are_both_drawn():
    axes = [cases.effects({name: values}) for name, values in (("subset", ("s1", "s2")), ("criterion", ("c1", "c2")))]
    figure = plots.accuracy_by_axis(pd.concat(axes))
    assert [trace.hovertext[0].split("<br>")[0] for trace in figure.data] == [
        "<b>subset: s1</b>",
        "<b>criterion: c1</b>",
    ]


def test_ways_and_classes_that_are_not_known_are_refused():
    speed = benchmark.make_speed()
    with pytest.raises(ValueError, match="has a path 'mine', and there are full pass per mask"):
        plots.selection_speed(speed.assign(path=speed["path"].replace({"bare forward": "mine"})))
    with pytest.raises(ValueError, match="has a model_class 'LlamaForCausalLM'"):
        plots.selection_speed(
            speed.assign(model_class=speed["model_class"].replace({"TransformerBridge": "LlamaForCausalLM"}))
        )
    with pytest.raises(ValueError, match="several rows of model"):
        plots.selection_speed(pd.concat([speed, speed.assign(seconds_per_mask=9.0)]))
    with pytest.raises(ValueError, match="has no replay of"):
        plots.selection_speed(speed[speed["path"] == "bare forward"])


def test_shares_of_flipped_labels_are_not_rounded_away():
    figure = plots.accuracy_by_noise(cases.study().assign(noise=lambda table: table["noise"] / 80))
    texts = [tick.rstrip("%") for tick in figure.layout.xaxis.ticktext]
    assert len(set(texts)) == len(texts) and [float(one) / 100 for one in texts] == pytest.approx(
        list(figure.layout.xaxis.tickvals), rel=0.01
    )


def test_subsets_that_are_no_cell_are_named():
    table = cases.of("hacking")
    whole, wrong = table["subset"].iloc[0], table["subset"].iloc[0].replace("standard", "standart")
    caption = captions(plots.bias_grid(table.assign(subset=table["subset"].replace({whole: wrong}))))
    assert f"Without 1 subset outside the grid, such as {wrong}." in caption
