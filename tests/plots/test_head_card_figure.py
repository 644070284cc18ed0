"""Head cards as figures: what they draw, at every theme, and that they leave out nothing silently."""

from __future__ import annotations

import html

import numpy as np
import pandas as pd
import pytest

from arm_lens.plots.head_card import head_card_figure
from arm_lens.plots.measures import MEASURES
from arm_lens.plots.theme import COLUMN, PAGE, SCREEN, themed

WORDS = "the quick brown fox <b>jumps</b> over a lazy dog & $sleeps$ .".split()


def make_attention(prompts=4, words=60, *, spaced=False, peak=None):
    random, parts = np.random.default_rng(0), []
    for number in range(prompts):
        weights = random.dirichlet(np.full(words, 0.3))
        if peak is not None:
            weights = np.full(words, 0.1 / (words - 1))
            weights[peak] = 0.9
        tokens = [(" " if spaced and place % 3 else "") + WORDS[place % len(WORDS)] for place in range(words)]
        columns = {"example": f"prompt {number}", "verdict": "Yes" if number < 2 else "No", "position": range(words)}
        parts.append(pd.DataFrame(columns | {"token": tokens, "weight": weights}))
    return pd.concat(parts, ignore_index=True)


def make_tokens(count=10, shift=0.0):
    effects = np.linspace(2, 0.2, count)
    promoted = pd.DataFrame(
        {"direction": "promoted", "token": [f" up{n}" for n in range(count)], "effect": effects + shift}
    )
    suppressed = promoted.assign(
        direction="suppressed", token=[f"down{n}" for n in range(count)], effect=-effects + shift
    )
    return pd.concat([promoted, suppressed], ignore_index=True)


def make_scores(criteria=("safe", "polite"), measures=("injection", "shapley")):
    random = np.random.default_rng(1)
    rows = []
    for criterion in criteria:
        for measure in measures:
            score, reach = random.normal(0, 0.1), abs(random.normal(0, 0.1))
            outcome = "search" if measure == "selection_probability" else "probability"
            rows.append(
                (criterion, measure, outcome, score, score - reach, score + reach, 40, random.integers(1, 49), 48)
            )
    columns = ["criterion", "measure", "outcome", "score", "ci_low", "ci_high", "n", "rank", "heads"]
    return pd.DataFrame(rows, columns=columns)


def named(figure, name):
    return [trace for trace in figure.data if trace.name == name]


def written(figure):
    return " ".join(str(note.text) for note in figure.layout.annotations).replace("<br>", " ")


def test_every_token_of_short_prompts_is_drawn_with_its_weight():
    attention = make_attention(words=30)
    (trace,) = named(head_card_figure(attention, make_tokens(), title="Head"), "attention")
    shown = attention[attention["example"].isin(["prompt 0", "prompt 2", "prompt 1"])]  # both verdicts in turn
    assert sorted(trace.marker.color) == pytest.approx(sorted(shown["weight"]))
    assert "&lt;b&gt;jumps&lt;/b&gt;" in trace.text and "&#36;sleeps&#36;" in trace.text
    assert len(trace.x) == 90


def test_one_setting_is_drawn_and_named_at_every_width():
    bare, shown = make_attention(words=20), make_attention(words=30)
    both = pd.concat([bare.assign(setting="zero-shot"), shown.assign(setting="few-shot")], ignore_index=True)
    for theme in (SCREEN, COLUMN, PAGE):
        with themed(theme):
            for setting, frame in {None: bare, "zero-shot": bare, "few-shot": shown}.items():
                figure = head_card_figure(both, make_tokens(), setting=setting, title="Head")
                alone = head_card_figure(frame, make_tokens(), title="Head")
                (trace,), (expected,) = (named(one, "attention") for one in (figure, alone))
                assert list(trace.marker.color) == list(expected.marker.color)
                drawn, other = ("few-shot", "zero-shot") if setting == "few-shot" else ("zero-shot", "few-shot")
                assert drawn in written(figure) and other not in written(figure)
                assert "zero-shot" not in written(alone)
    with pytest.raises(ValueError, match="no setting 'two-shot'; it has 'zero-shot', 'few-shot'"):
        head_card_figure(both, make_tokens(), setting="two-shot")
    with pytest.raises(ValueError, match="no column 'setting'"):
        head_card_figure(bare, make_tokens(), setting="zero-shot")


def test_tokens_do_not_overlap_and_stay_on_the_page():
    for theme in (SCREEN, COLUMN, PAGE):
        with themed(theme):
            figure = head_card_figure(
                make_attention(words=200, spaced=True), make_tokens(), make_scores(), title="Head"
            )
        (trace,) = named(figure, "attention")
        widths = np.array([7.2 * len(html.unescape(text)) for text in trace.text])
        left, right, line = np.array(trace.x) - widths / 2, np.array(trace.x) + widths / 2, np.array(trace.y)
        for y in np.unique(line):
            here = line == y
            order = np.argsort(left[here])
            assert (right[here][order][:-1] <= left[here][order][1:] + 0.5).all()
        assert left.min() >= -1 and right.max() <= theme.page_width - 28 + 1
        assert figure.layout.width == theme.page_width


@pytest.mark.parametrize("peak", [5, 150, 299])
def test_of_a_long_prompt_the_lines_with_the_most_attention_are_shown(peak):
    figure = head_card_figure(make_attention(1, 300, peak=peak), make_tokens(), title="Head", lines=3)
    (trace,) = named(figure, "attention")
    assert max(trace.marker.color) == pytest.approx(0.9) and len(set(trace.y)) == 3
    hidden = 300 - len(trace.x)
    assert f"{hidden} tokens not shown get {hidden * 0.1 / 299:.2f}" in written(figure)


@pytest.mark.parametrize("shift", [0.0, 5.0, -5.0])
def test_bars_carry_their_numbers_and_signs(shift):
    tokens = make_tokens(shift=shift)
    figure = head_card_figure(make_attention(), tokens, title="Head", top=3)
    (bars,) = named(figure, "tokens")
    drawn = [*tokens.head(3)["effect"], *tokens[tokens["direction"] == "suppressed"].head(3)["effect"]]
    assert list(bars.x) == pytest.approx(drawn) and len(set(bars.y)) == 6
    for text, value, color in zip(bars.text, drawn, bars.marker.color, strict=True):
        assert text.startswith("+" if value > 0 else "−")
        assert (color == "#2f7fb5") == (value > 0)
    low, high = figure.layout[bars.xaxis.replace("x", "xaxis")].range
    assert low <= min(0, *drawn) and high >= max(0, *drawn)
    assert "␣up0" in str(figure.layout[bars.yaxis.replace("y", "yaxis")].ticktext)


def test_scores_have_an_axis_per_measure_and_are_filled_where_the_interval_excludes_0():
    scores = make_scores(("safe", "polite", "brief"), ("injection", "shapley", "selection_probability"))
    figure = head_card_figure(make_attention(), make_tokens(), scores, title="Head")
    panels = named(figure, "scores")
    assert len({panel.xaxis for panel in panels}) == 3
    for panel, measure in zip(panels, ("shapley", "injection", "selection_probability"), strict=True):
        own = scores[scores["measure"] == measure]
        assert list(panel.x) == own["score"].to_list()
        filled = ((own["ci_low"] > 0) | (own["ci_high"] < 0)).to_list()
        assert [color == "#333333" for color in panel.marker.color] == filled
        low, high = figure.layout[panel.xaxis.replace("x", "xaxis")].range
        assert low <= own["ci_low"].min() and high >= own["ci_high"].max() and low < 0 < high
    assert "of the outcome 'search'" in written(figure) and "rank among 48 heads" in written(figure)


def test_measures_without_room_are_named():
    scores = make_scores(tuple("abcdefgh"), tuple(MEASURES))
    for theme, drawn in ((SCREEN, 6), (COLUMN, 4)):
        with themed(theme):
            figure = head_card_figure(make_attention(), make_tokens(), scores, title="Head")
        assert len(named(figure, "scores")) == drawn
        assert "Not drawn: " in written(figure) and "Selection probability" in written(figure)


def test_scores_that_are_missing_leave_their_lines_empty():
    scores = make_scores()
    scores.loc[0, ["score", "ci_low", "ci_high", "rank"]] = np.nan
    figure = head_card_figure(make_attention(), make_tokens(), scores, title="Head")
    assert [len(panel.x) for panel in named(figure, "scores")] == [2, 1]
    assert not named(head_card_figure(make_attention(), make_tokens(), title="Head"), "scores")


def test_tables_that_lack_something_are_refused():
    with pytest.raises(ValueError, match="'attention' lacks the column 'weight'"):
        head_card_figure(make_attention().drop(columns="weight"), make_tokens(), title="Head")
    with pytest.raises(ValueError, match="'tokens' is empty"):
        head_card_figure(make_attention(), make_tokens().head(0), title="Head")
    with pytest.raises(ValueError, match="'attributions' lacks the column 'ci_low'"):
        head_card_figure(make_attention(), make_tokens(), make_scores().drop(columns="ci_low"), title="Head")
