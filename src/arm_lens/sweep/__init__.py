"""Sweeps: the same fits over models, selectors, layers and other options, as parts of a benchmark.

    grid = read_grid("grid.yaml")
    results = run_sweep(grid, "out")
    results.runs  # a row per fit and subset, with a column for each axis, a DataFrame

A sweep is no second benchmark: a grid becomes one benchmark configuration per model, whose judges are the Activation Reward
Model with each selector and option, and its parts lie in one store. `arm_lens.reports.write_sweep` makes the page.
"""

from arm_lens.sweep.grid import SweepGrid, read_grid
from arm_lens.sweep.needs import Fit, Needs, Shape, needs, needs_table
from arm_lens.sweep.run import SweepResults, run_sweep

__all__ = ["Fit", "Needs", "Shape", "SweepGrid", "SweepResults", "needs", "needs_table", "read_grid", "run_sweep"]
