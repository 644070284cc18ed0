"""The speed figure says what its table says."""

from __future__ import annotations

import itertools

import pandas as pd
import pytest

from arm_lens.plots import selection_speed


def table(models=("one", "two <b>")):
    rows = []
    for model, kind, tokens, masks in itertools.product(
        models, ("TransformerBridge", "HookedTransformer"), (64, 256), (1, 8, 32)
    ):
        common = {"model": model, "model_class": kind, "prompt_tokens": tokens}
        if masks == 1:
            rows.append(common | {"path": "full pass per mask", "masks": 1, "seconds_per_mask": tokens / 100})
            rows.append(common | {"path": "bare forward", "masks": 1, "seconds_per_mask": tokens / 110})
        for path, each in (("replay", 1e-3), ("replay, whole vocabulary", 2e-3)):
            rows.append(common | {"path": path, "masks": masks, "seconds_per_mask": each + 0.01 / masks + tokens / 1e6})
    return pd.DataFrame(rows)


def lines(figure, axis):
    return {
        trace.name: dict(zip(trace.x, trace.y, strict=True))
        for trace in figure.data
        if trace.xaxis == axis and trace.name.count(",") and trace.x[0] is not None
    }


@pytest.mark.slow
def test_the_left_panel_varies_the_prompt_at_one_number_of_masks():
    drawn = lines(selection_speed(table()), "x")
    assert drawn["replay, TransformerBridge"] == pytest.approx(
        {64: 1e-3 + 0.01 / 32 + 64e-6, 256: 1e-3 + 0.01 / 32 + 256e-6}
    )
    assert drawn["full pass per mask, HookedTransformer"] == pytest.approx({64: 0.64, 256: 2.56})


def test_the_right_panel_varies_the_masks_and_passes_per_mask_are_level():
    drawn = lines(selection_speed(table()), "x2")
    assert drawn["replay, HookedTransformer"] == pytest.approx({m: 1e-3 + 0.01 / m + 256e-6 for m in (1, 8, 32)})
    assert drawn["full pass per mask, TransformerBridge"] == pytest.approx({1: 2.56, 32: 2.56})


def test_names_are_literal_and_the_legend_lists_what_is_drawn():
    figure = selection_speed(table())
    assert any("two &lt;b&gt;" in note.text for note in figure.layout.annotations)
    listed = [trace.name for trace in figure.data if trace.showlegend is not False]
    assert listed == [
        "full pass per mask", "bare forward", "replay, whole vocabulary", "replay", "TransformerBridge",
        "HookedTransformer",
    ]  # fmt: skip
    bridge_only = table().query("model_class == 'TransformerBridge'")
    assert "HookedTransformer" not in [
        trace.name for trace in selection_speed(bridge_only).data if trace.showlegend is not False
    ]


def test_bad_tables_are_refused():
    with pytest.raises(ValueError, match="seconds_per_mask"):
        selection_speed(table().drop(columns="seconds_per_mask"))
    with pytest.raises(ValueError, match="empty"):
        selection_speed(table().iloc[:0])


def test_where_the_default_length_was_not_measured_the_nearest_is_drawn_and_named():
    short = table(("one",)).query("prompt_tokens == 64 and masks < 32")
    figure = selection_speed(short)
    assert lines(figure, "x2")["replay, TransformerBridge"] == pytest.approx(
        {1: 1e-3 + 0.01 + 64e-6, 8: 1e-3 + 0.01 / 8 + 64e-6}
    )
    text = " ".join(note.text for note in figure.layout.annotations)
    assert "prompts of 64 tokens" in text and "8 masks on each prompt" in text
