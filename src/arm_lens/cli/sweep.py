"""The command ``sweep``, with a live table of its parts."""

from __future__ import annotations

from collections import Counter
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

from arm_lens.cli.commands import AllowKey, Force, Ray, _writable, check_place
from arm_lens.cli.output import _plain, console, resumable, say
from arm_lens.safe_text import printable

if TYPE_CHECKING:
    import pandas as pd

    from arm_lens.benchmark.run import Progress
    from arm_lens.sweep import SweepResults

MOST_TITLES = 4
"""The most tasks in progress that are named."""


def sweep(
    grid: Annotated[str, typer.Argument(help="A YAML file with the axes of the sweep.")] = "",
    out: Annotated[Path, typer.Option(help="Folder for what is written.")] = Path("sweep"),
    data: Annotated[
        Path | None, typer.Option(help="The folder from which GRID's paths of data start, instead of its own.")
    ] = None,
    workers: Annotated[int | None, typer.Option(min=1, help="Processes, instead of the file's.")] = None,
    ray: Ray = "",
    report: Annotated[
        Path | None, typer.Option(help="Run nothing: write tables and page of this folder as they are now.")
    ] = None,
    allow_key: AllowKey = [],  # noqa: B006
    force: Force = False,
) -> None:
    """Fit over models, selectors, layers and other options; write runs, tables and report.html.

    Called again with the same folder, an interrupted sweep continues where it stopped, and what failed is tried again.
    """
    from arm_lens.reports import write_sweep
    from arm_lens.sweep import SweepResults, read_grid, run_sweep

    if report is not None:
        if grid:
            raise typer.BadParameter("--report FOLDER needs no GRID")
        results = SweepResults.of(report)
        results.save(report)
        say("", f"Look at {write_sweep(results, report)}")
        _end(results)
        return
    if not grid:
        raise typer.BadParameter("name a GRID, or a folder with --report")
    check_place(workers, ray)
    _writable(out)
    settings = read_grid(grid, allow_keys=allow_key, data=data)
    if workers is not None:
        settings = settings.model_copy(update={"workers": workers})
    with resumable(out), Live(console=console, auto_refresh=False, transient=True) as live:

        def watch(parts: pd.DataFrame, progress: Progress) -> None:
            live.update(_view(parts, progress), refresh=True)

        results = run_sweep(settings, out, ray=ray or None, force=force, watch=watch)
    for row in results.parts[results.parts["state"] == "failed"].to_dict("records"):
        named = [
            str(row[name]) for name in ("model", "judge", "selector", "layers", "benchmark", "subset") if row[name]
        ]
        say("[yellow]failed:[/] ", f"{', '.join(named)}: {row['error']}")
    say("", f"Look at {write_sweep(results, out)}")
    _end(results)


def _end(results: SweepResults) -> None:
    """Say how many parts are done, and end with an error if some are missing."""
    counts = results.meta["parts"]
    say("", f"{counts['done']} parts done, {counts['failed']} failed, {counts['missing']} not run")
    if not results.complete:
        raise typer.Exit(1)


def _view(parts: pd.DataFrame, progress: Progress) -> Group:
    """How many parts of each model, or of a single model's judges, are done, failed and left; and what is in progress."""
    by = "model" if parts["model"].nunique() > 1 else "label"
    total, done, failed = Counter(parts[by]), Counter[str](), Counter[str]()
    names = dict(zip(parts["digest"], parts[by], strict=True))
    done.update(names[digest] for digest in progress.done)
    failed.update(names[digest] for digest in progress.failed)
    table = Table(by if by == "model" else "judge", *("done", "failed", "left"))
    for name, count in total.items():
        table.add_row(_plain(name), *map(str, (done[name], failed[name], count - done[name] - failed[name])))
    left = "" if progress.seconds_left is None else f", {timedelta(seconds=round(progress.seconds_left))} left"
    lines = [f"{len(progress.done) + len(progress.failed)} of {progress.total}{left}"]
    lines += [f"running: {printable(title)}" for title in progress.running[:MOST_TITLES]]
    return Group(table, *(Text(line, no_wrap=True, overflow="ellipsis") for line in lines))
