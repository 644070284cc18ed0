"""The figure of a sweep says what its table says: a panel per axis, a dot with its interval per value."""

from __future__ import annotations

import pandas as pd
import pytest

from arm_lens import plots

TABLE = pd.DataFrame(
    [
        ("selector", "one", 0.7, 0.6, 0.8, 3),
        ("selector", "two", 0.8, 0.75, 0.9, 3),
        ("n_examples", "4", 0.5, 0.4, 0.6, 6),
        ("n_examples", "20", 0.9, 0.8, 0.95, 6),
        ("layers", "all", float("nan"), float("nan"), float("nan"), 0),
    ],
    columns=["axis", "value", "accuracy", "ci_low", "ci_high", "settings"],
)


def test_each_axis_has_a_panel_with_its_values_and_intervals():
    figure = plots.accuracy_by_axis(TABLE)
    first, second = figure.data
    assert list(first.y) == [0.7, 0.8] and list(second.y) == [0.5, 0.9]
    assert first.error_y.array == pytest.approx([0.1, 0.1]) and first.error_y.arrayminus == pytest.approx([0.1, 0.05])
    assert list(figure.layout.xaxis.ticktext) == ["one", "two"] and list(figure.layout.xaxis2.ticktext) == ["4", "20"]
    texts = " ".join(one.text for one in figure.layout.annotations)
    assert "over 3 settings" in texts and "labelled examples" in texts and "Without layers: no setting has all" in texts


def test_a_table_without_a_mean_is_refused():
    with pytest.raises(ValueError, match="no setting has all values"):
        plots.accuracy_by_axis(TABLE.assign(accuracy=float("nan")))
