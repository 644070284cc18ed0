"""Pages and figure folders from results.

    results = run_benchmark(config, "out")
    write_report(results, "out")  # out/report.html
    save_figures(results, "out/figures")
    write_sweep(sweep, "out")  # likewise, of a sweep

A page has the same bytes whenever it is made of the same results.
"""

from arm_lens.reports.benchmark import write_report
from arm_lens.reports.figures import figures_of_run, save_figures
from arm_lens.reports.sweep import write_sweep

__all__ = ["figures_of_run", "save_figures", "write_report", "write_sweep"]
