from __future__ import annotations

import re
from html.parser import HTMLParser

import numpy as np
import pandas as pd
import pytest
import torch

from arm_lens import Head, HeadScores, HeadSet
from arm_lens.attribution import Attribution
from arm_lens.benchmark import BenchmarkResults
from arm_lens.display import card, code_line, extremes, frame_table, score_map, set_map, small_print
from arm_lens.engine.reading import HeadMeans
from arm_lens.evaluation.health import Check
from arm_lens.evaluation.tables import BenchmarkTables
from arm_lens.selection import Selection

HOSTILE = "</title></svg><script>alert('1')</script>\"' onload=x <b>&amp;"
VOID = {"br", "img", "input", "hr", "meta", "link"}


class Page(HTMLParser):
    """The elements of a fragment, with their attributes, those of the elements around them, and their text."""

    def __init__(self, text):
        super().__init__()
        self.open, self.elements = [], []
        self.feed(text)
        self.close()
        assert not self.open, f"not closed: {self.open[-1]['tag']}"

    def handle_starttag(self, tag, attrs):
        around = self.open[-1]["inherited"] if self.open else {}
        element = {"tag": tag, **dict(attrs), "text": "", "inherited": around | dict(attrs), "parent": None}
        element["parent"] = self.open[-1] if self.open else None
        self.elements.append(element)
        if tag not in VOID:
            self.open.append(element)

    def handle_startendtag(self, tag, attrs):
        self.handle_starttag(tag, attrs)
        if tag not in VOID:
            self.open.pop()

    def handle_endtag(self, tag):
        assert self.open.pop()["tag"] == tag

    def handle_data(self, data):
        for element in self.open:
            element["text"] += data

    def all(self, tag):
        return [element for element in self.elements if element["tag"] == tag]

    @property
    def text(self):
        return " ".join(element["text"] for element in self.elements if element["parent"] is None)

    def cells(self):
        """By head: where its cell is drawn (x, y), its hue, its opacity and what its tooltip says."""
        found = {}
        for title in self.all("title"):
            path = title["parent"]
            x, y = map(float, re.match(r"M([\d.]+) ([\d.]+)h", path["d"]).groups())
            name, _, value = title["text"].partition(" ")
            head = Head(*map(int, re.fullmatch(r"L(\d+)H(\d+)", name).groups()))
            look = path["inherited"]
            found[head] = (x, y, look["stroke"], float(look["stroke-opacity"]), value)
        return found


def scores(rows, columns, seed=0):
    return torch.randn(rows, columns, generator=torch.Generator().manual_seed(seed))


def attribution(per_example, criterion=""):
    return Attribution.of(
        {"probability": per_example}, range(len(per_example)), measure="injection", criterion=criterion
    )


def tables(judges):
    rows = [
        {"benchmark": HOSTILE, "subset": subset, "judge": judge, "n_examples": 8, "noise": 0.0, "accuracy": accuracy}
        for judge in judges
        for subset, accuracy in (("one", 0.25), ("two", 0.75))
    ]
    return BenchmarkTables(*(pd.DataFrame(rows) for _ in range(4)))


def results(judges=("probe", "sav")):
    meta = {"title": HOSTILE, "model": HOSTILE, "lead": judges[0], "seeds": 3}
    checks = [Check(HOSTILE, "", ["here"]), Check("not seen", "", [])]
    empty = pd.DataFrame()
    return BenchmarkResults(meta=meta, items=empty, fits=empty, tables=tables(judges), checks=checks)


def everything():
    values = scores(3, 4)
    heads, named = HeadSet.of(3, 4, [(0, 1), (2, 3)]), HeadScores(HOSTILE, values)
    history = pd.DataFrame({"step": [0, 1], "reward": [-0.5, -0.25]})
    return {
        "HeadSet": heads,
        "HeadScores": named,
        "Selection": Selection(heads, named, history),
        "HeadMeans": HeadMeans(scores(3, 20).reshape(3, 4, 5), 7),
        "Attribution": attribution(scores(9, 12).reshape(9, 3, 4), HOSTILE),
        "BenchmarkResults": results((HOSTILE, "probe")),
        "BenchmarkTables": tables((HOSTILE, "probe")),
    }


NAMES = list(everything())


# ---------------------------------------------------------------------------------------------------- what holds for all


@pytest.mark.parametrize("name", NAMES)
def test_html_is_well_formed_and_runs_and_fetches_nothing_whatever_the_names(name):
    text = everything()[name]._repr_html_()
    page = Page(text)
    allowed = {"div", "span", "svg", "g", "path", "title", "text", "code", "table", "thead", "tbody", "tr", "th", "td"}
    assert {element["tag"] for element in page.elements} <= allowed
    assert not re.search(r"https?:|url\(|<script|<style|<b>", text)
    for element in page.elements:
        assert not any(key.startswith("on") or key in ("href", "src", "id") for key in element)


@pytest.mark.parametrize("name", sorted(set(NAMES) - {"HeadSet", "HeadMeans"}))
def test_names_from_users_data_are_shown_as_they_are(name):
    assert HOSTILE in Page(everything()[name]._repr_html_()).text


@pytest.mark.parametrize("name", NAMES)
def test_html_has_no_background_and_no_fixed_colour_of_text(name):
    for element in Page(everything()[name]._repr_html_()).elements:
        style = element.get("style") or ""
        assert not re.search(r"background(?!:none)", style)
        colours = {element.get("fill"), *re.findall(r"(?<![-\w])color:([^;\"]+)", style)}
        assert colours <= {None, "none", "currentColor", "inherit", "#2f7fb5", "#c46a1b"}


@pytest.mark.parametrize("name", NAMES)
def test_a_repr_is_short_and_names_its_class(name):
    text = repr(everything()[name])
    assert text.startswith(name) and len(text.splitlines()) <= 12


@pytest.mark.slow
def test_the_reprs_of_large_results_stay_short():
    many = [f"criterion {number}" for number in range(40)]
    everyone = HeadSet.all(80, 64)
    history = pd.DataFrame({"reward": [0.0]})
    for one in (results(many), tables(many), everyone, Selection(everyone, HeadScores("x", scores(80, 64)), history)):
        assert len(repr(one).splitlines()) <= 13 and len(repr(one)) < 2500
    assert max(map(len, repr(results(many)).splitlines())) <= 130


def test_html_parts_escape_their_text():
    frame = pd.DataFrame({HOSTILE: [HOSTILE]}, index=[HOSTILE])
    text = card(HOSTILE, {HOSTILE: HOSTILE}, small_print(HOSTILE), code_line(HOSTILE), frame_table(frame))
    assert Page(text).text.count(HOSTILE) == 8 and "<script" not in text


def test_a_card_leaves_out_facts_that_are_none_and_keeps_those_that_are_zero():
    text = Page(card("title", {"absent": None, "count": 0})).text
    assert "absent" not in text and "count0" in text


# ------------------------------------------------------------------------------------------------------- maps in notebooks


def test_the_cells_of_a_set_are_its_heads_and_layer_0_is_at_the_bottom():
    heads = HeadSet.of(5, 7, [(0, 0), (0, 6), (3, 2), (4, 5)])
    cells = Page(set_map(heads.mask)).cells()
    assert set(cells) == heads.heads
    for head, (x, y, _, opacity, _) in cells.items():
        assert (x, y, opacity) == (head.head, 4 - head.layer, 1.0)


def test_the_labels_of_layers_stand_beside_their_rows():
    page = Page(set_map(HeadSet.all(4, 3).mask))
    [grid] = [element for element in page.all("g") if element.get("transform")]
    [(top, side)] = re.findall(r"translate\(\S+ (\S+)\) scale\((\S+)\)", grid["transform"])
    labels = {one["text"]: float(one["y"]) for one in page.all("text") if one.get("text-anchor") == "end"}
    for (layer, _), (_, y, *_) in page.cells().items():
        assert abs(labels[str(layer)] - (float(top) + float(side) * y)) < 5


def test_every_tooltip_is_the_value_and_every_cell_is_where_its_head_is():
    values = scores(6, 9)
    cells = Page(score_map(values)).cells()
    assert len(cells) == 54
    for head, (x, y, _, _, text) in cells.items():
        assert float(text) == pytest.approx(float(values[head]), rel=6e-3)
        assert (x, y) == (head.head, 5 - head.layer)


def test_shades_grow_with_size_and_hues_follow_the_sign():
    values = torch.tensor([[-1.0, -0.5, -0.1, 0.0], [0.1, 0.5, 0.75, 1.0]])
    cells = Page(score_map(values)).cells()
    shade = [cells[head][3] for head in sorted(cells)]
    assert shade == [1.0, 0.5, 0.1, 0.0, 0.1, 0.5, 0.75, 1.0]
    hues = {(cells[head][2], float(values[head]) < 0) for head in cells}
    assert len(hues) == 2 == len({hue for hue, _ in hues})


def test_a_scale_without_negative_values_goes_from_low_to_high_and_names_its_ends():
    values = torch.tensor([[0.5, 0.75, 1.0]])
    page = Page(score_map(values))
    cells = page.cells()
    assert [cells[head][3] for head in sorted(cells)] == [0, 0.5, 1]
    assert "0.5 to " in page.text and page.text.endswith(" 1")


def test_heads_that_were_not_measured_say_so_and_have_no_shade():
    values = torch.tensor([[0.2, float("nan")], [float("nan"), 0.4]])
    cells = Page(score_map(values)).cells()
    assert {head for head, cell in cells.items() if cell[4] == "not measured"} == {(0, 1), (1, 0)}
    assert cells[Head(0, 1)][3] == cells[Head(1, 0)][3] == 0
    assert cells[Head(1, 1)][3] == 1
    for one in (values, torch.full((2, 2), float("nan"))):
        assert "a stroke: not measured" in score_map(one)
    assert "not measured" not in score_map(torch.ones(2, 2))


def framed(text):
    """Which (x, y) lie in a frame."""
    frames = re.findall(r"M(\d+) (-?[\d.]+)h([\d.]+)v\.9h-[\d.]+z", text)
    return [
        (int(x) + step, round(float(y) + 0.45)) for x, y, width in frames for step in range(round(float(width) + 0.1))
    ]


@pytest.mark.parametrize("share", [0.1, 0.9])  # 0.9 of 800: neighbours share a frame
def test_exactly_the_chosen_heads_are_framed(share):
    chosen = torch.rand(20, 40, generator=torch.Generator().manual_seed(0)) < share
    expected = [(head, 19 - layer) for layer, head in HeadSet.from_mask(chosen)]
    found = framed(score_map(scores(20, 40), chosen=chosen))
    assert sorted(found) == sorted(expected)


@pytest.mark.slow
def test_maps_of_large_models_stay_small():
    everyone = HeadSet.all(80, 64)
    values = HeadScores("shapley on probability", scores(80, 64) * 1e-5)
    half = HeadSet.from_mask(scores(80, 64, seed=1) > 0)
    history = pd.DataFrame({"reward": [0.0, 1.0]})
    for one in (everyone, values, Selection(half, values, history), HeadMeans(torch.rand(80, 64, 4), 3)):
        assert len(one._repr_html_()) < 400_000
    assert len(Page(values._repr_html_()).cells()) == 80 * 64


def test_of_more_heads_than_can_be_drawn_the_largest_are_and_the_others_are_counted():
    values = scores(126, 128)
    text = HeadScores("x", values)._repr_html_()
    assert len(text) < 400_000
    drawn = Page(text).cells()
    smallest = min(abs(float(values[head])) for head in drawn)
    assert int((values.abs() > smallest).sum()) < len(drawn)
    assert f"without the {values.numel() - len(drawn)} smallest" in text


def test_values_of_any_precision_and_with_gradients_are_shown():
    for values in (scores(2, 3).bfloat16(), scores(2, 3).double(), scores(2, 3).requires_grad_()):
        one = HeadScores("x", values)
        assert len(Page(one._repr_html_()).cells()) == 6 and repr(one) and str(one)


# ------------------------------------------------------------------------------------------------------ maps in a terminal


def grid_of(values):
    """The lines of layers, from layer 0 up, and the other lines, of a printed map."""
    lines = str(HeadScores("name", values)).splitlines()[1:]
    layers = [line for line in lines if re.match(r"L\d+ ", line)]
    assert [int(re.match(r"L(\d+)", line)[1]) for line in layers] == list(reversed(range(len(values))))
    return layers[::-1], lines[len(layers) :]


@pytest.mark.parametrize("shape", [(1, 1), (6, 8), (32, 32), (3, 48), (3, 49), (80, 64), (4, 97), (126, 128), (2, 300)])
@pytest.mark.parametrize("sign", [1, -1])
def test_a_printed_map_has_a_line_per_layer_and_at_most_100_columns(shape, sign):
    values = sign * scores(*shape).abs()
    layers, others = grid_of(values)
    assert len(layers) == shape[0]
    assert max(map(len, [*layers, *others])) <= 100
    assert len(set(map(len, layers))) == 1


def test_a_printed_map_marks_the_largest_and_the_sign():
    values = torch.full((4, 16), 0.001)
    values[3, 1], values[0, 7] = 5.0, -5.0
    layers, _ = grid_of(values)
    start = len("L3 ")
    places = {
        (layer, (at - start) // 2) for layer, line in enumerate(layers) for at, one in enumerate(line) if one == "█"
    }
    assert places == {(3, 1), (0, 7)}
    assert "-█" in layers[0] and "-" not in layers[3]


def test_shades_of_a_printed_map_rank_the_values():
    values = torch.arange(100.0).reshape(10, 10)
    layers, _ = grid_of(values)
    marks = "".join(re.sub(r"^L\d+ +", "", line).replace(" ", "") for line in layers)
    assert len(marks) == 100
    assert marks == "".join(sorted(marks, key="·░▒▓█".index))
    assert [marks.count(one) for one in "·░▒▓█"] == [50, 25, 15, 7, 3]


def test_a_wide_printed_map_has_other_marks_below_zero_and_neighbours_share_a_place():
    values = torch.full((2, 64), 0.001)
    values[1, 5], values[0, 6] = 3.0, -3.0
    layers, _ = grid_of(values)
    assert (layers[1][3 + 5], layers[0][3 + 6]) == ("█", "#")
    values = torch.full((2, 192), 0.001)
    values[1, 100] = 3.0
    layers, others = grid_of(values)
    assert layers[1][3 + 50] == "█" and sum(line.count("█") for line in layers) == 1
    assert "strongest of 2 heads" in " ".join(others)


def test_heads_that_were_not_measured_are_marked_in_a_printed_map():
    values = scores(3, 4)
    values[1, 2] = float("nan")
    layers, others = grid_of(values)
    assert [line.count("×") for line in layers] == [0, 1, 0]
    assert "× not measured" in " ".join(others)


# -------------------------------------------------------------------------------------------------------------- each object


def test_scores_name_their_five_highest_heads_and_skip_those_not_measured():
    values = torch.tensor([[0.1, 0.9, float("nan")], [0.3, 0.2, 0.25]])
    assert repr(HeadScores("gain", values)) == (
        "HeadScores('gain', 2 layers of 3 heads, highest: L0H1 0.9, L1H0 0.3, L1H2 0.25, L1H1 0.2, L0H0 0.1)"
    )
    assert "highest: none" in repr(HeadScores("gain", torch.full((1, 2), float("nan"))))


def test_a_set_shows_a_few_heads_and_counts_the_others_but_prints_all():
    heads = HeadSet.of(2, 20, [(1, head) for head in range(20)])
    assert repr(heads).count("L1H") == 12 and "8 more" in repr(heads)
    assert str(heads).count("L1H") == 20


def test_a_selection_tells_where_its_search_began_and_ended():
    one = everything()["Selection"]
    assert "2 heads {L0H1, L2H3}" in repr(one) and "-0.5 at first, -0.25 at last" in repr(one)
    assert "-0.5 at first, -0.25 at last" in one._repr_html_()
    assert len(framed(one._repr_html_())) == 2
    without = Selection(one.heads, one.head_scores, pd.DataFrame())
    assert "reward unknown" in repr(without)


def test_means_are_shown_by_their_norms():
    values = scores(3, 20).reshape(3, 4, 5)
    cells = Page(HeadMeans(values, 7)._repr_html_()).cells()
    for head, cell in cells.items():
        assert float(cell[4]) == pytest.approx(float(np.linalg.norm(values[head].numpy())), rel=6e-3)


def test_an_attribution_shows_its_extreme_heads_with_their_intervals():
    per_example = scores(9, 12).reshape(9, 3, 4)
    one = attribution(per_example)
    frame = one.frame().sort_values("score", ascending=False)
    lines = repr(one).splitlines()[2:]
    assert len(lines) == 6
    for line, (_, row) in zip(lines, pd.concat([frame.head(3), frame.tail(3)]).iterrows(), strict=True):
        name, *numbers = line.replace(" to ", " ").split()
        assert name == f"L{row['layer']}H{row['head']}"
        assert [float(number) for number in numbers] == pytest.approx(
            [row["score"], row["ci_low"], row["ci_high"]], rel=6e-3
        )
    text = Page(one._repr_html_()).text
    assert all(f"L{row['layer']}H{row['head']}" in text for _, row in frame.head(3).iterrows())


def test_extremes_of_few_heads_are_all_of_them_once():
    frame = pd.DataFrame({"layer": [0, 0, 1], "head": [0, 1, 0], "score": [1.0, np.nan, -1.0]})
    frame = frame.assign(ci_low=[0.5, np.nan, np.nan], ci_high=[1.5, np.nan, np.nan])
    found = extremes(frame, name="gap")
    assert list(found.index) == ["L0H0", "L1H0"]
    assert list(found["95 % interval"]) == ["+0.5 to +1.5", "unknown"]


def test_results_show_their_means_and_which_failure_signs_there_are():
    one = results()
    for text in (repr(one), Page(one._repr_html_()).text):
        assert HOSTILE in text or repr(HOSTILE) in text
        assert text.count("0.500") == 2 and "probe" in text and "not seen" not in text


def test_benchmark_tables_show_the_mean_over_subsets():
    one = tables(("probe", "sav"))
    for text in (repr(one), Page(one._repr_html_()).text):
        assert text.count("0.500") == 2 and "probe" in text and "n_examples" not in text
