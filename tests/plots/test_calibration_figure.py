"""Reliability diagrams: bins pooled over subsets, and the Brier score that goes with them."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from plots.synthetic_benchmark import make_calibration, make_summary

from arm_lens import plots
from arm_lens.plots.rewards import pooled_bins
from arm_lens.registry import JUDGES

BINS = make_calibration(("few_shot", "sav"), n=80)
SUMMARY = make_summary(("zero_shot", "few_shot", "sav"), ("answers", "safe"), n=50, sizes=(), noises=(), hacking=False)


def test_bins_are_pooled_by_their_items():
    pooled = pooled_bins(BINS)
    for (judge, number), group in BINS.dropna().groupby(["judge", "bin"]):
        row = pooled[(pooled["judge"] == judge) & (pooled["bin"] == number)].iloc[0]
        counts = (group["accuracy"] * group["n"]).sum()
        assert row["n"] == group["n"].sum() and row["accuracy"] == pytest.approx(counts / group["n"].sum())
        assert row["ci_low"] <= row["accuracy"] <= row["ci_high"]
    assert 2 not in set(pooled["bin"])  # the bin without items


def test_reliability_draws_every_bin_and_tells_the_brier_score_over_items():
    summary = SUMMARY.assign(brier=np.linspace(0.1, 0.3, len(SUMMARY)), n=np.arange(1, len(SUMMARY) + 1))
    figure = plots.reliability(BINS, summary=summary)
    pooled = pooled_bins(BINS)
    for judge, note in zip(("sav", "few_shot"), figure.layout.annotations, strict=False):
        own = pooled[pooled["judge"] == judge]
        trace = next(trace for trace in figure.data if trace.name == JUDGES[judge].style.label)
        assert list(trace.x) == own["confidence"].to_list() and list(trace.y) == own["accuracy"].to_list()
        binned = BINS[(BINS["judge"] == judge) & (BINS["n"] > 0)]
        rows = summary[(summary["judge"] == judge) & summary["subset"].isin(binned["subset"])]
        brier = (rows["brier"] * rows["n"]).sum() / rows["n"].sum()
        assert f"Brier {brier:.3f}, n = {own['n'].sum()}" in note.text
    diagonals = [trace for trace in figure.data if trace.name == "diagonal"]
    assert len(diagonals) == 2 and all(tuple(trace.x) == tuple(trace.y) == (0, 1) for trace in diagonals)


def test_a_judge_without_probabilities_has_no_brier_score():
    figure = plots.reliability(BINS, summary=SUMMARY.assign(brier=np.nan))
    assert not any("Brier" in note.text for note in figure.layout.annotations)
    with pytest.raises(ValueError, match=r"no bin .* holds an item"):
        plots.reliability(BINS.assign(n=0))


def test_bins_of_the_cells_of_a_bias_have_intervals_for_the_same_items():
    one = BINS[(BINS["subset"] == BINS["subset"].iloc[0]) & (BINS["judge"] == "sav")].dropna()
    cells = [f"length | standard | bias on {which}" for which in ("chosen", "rejected", "both", "neither")]
    pooled = pooled_bins(pd.concat([one.assign(subset=cell) for cell in cells])).set_index("bin")
    expected = one[one["n"] > 0].set_index("bin").loc[pooled.index]
    for column in ("accuracy", "ci_low", "ci_high"):
        assert pooled[column].to_numpy() == pytest.approx(expected[column].to_numpy(dtype=float))
