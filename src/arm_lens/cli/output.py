"""What commands print: results as tables, warning signs, errors."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from arm_lens.safe_text import printable

if TYPE_CHECKING:
    import pandas as pd

    from arm_lens.benchmark import BenchmarkResults

console, errors = Console(emoji=False), Console(stderr=True, emoji=False)
NAME_WIDTH, NUMBER_WIDTH = 10, 5
"""The least characters of a name and of a number in a table; a terminal too narrow for them breaks lines, and cuts none."""


def say(markup: str, text: object = "", *, to: Console = console) -> None:
    """Print our own markup, then a text as it is: brackets are printed, control characters written out."""
    to.print(f"{markup}{_plain(text)}", soft_wrap=True)


def _plain(text: object) -> str:
    """A text as rich's markup, so that it is printed as it is."""
    plain = str(text)
    if "\ufdd0" in plain:  # the mark of an image
        from arm_lens.preferences.marks import describe_images

        plain = describe_images(plain)
    return escape(printable(plain))


@contextmanager
def resumable(where: Path) -> Iterator[None]:
    """Say after Ctrl-C what is not lost."""
    try:
        yield
    except KeyboardInterrupt:
        say("", f"Interrupted. What is done is in {where}; the same command continues from there.", to=errors)
        raise


def finish(results: BenchmarkResults, out: Path, show: Callable[[BenchmarkResults], None]) -> None:
    """Write the page; print results (``show``), the warning signs and where the page is, if anybody still listens."""
    from arm_lens.reports import write_report

    page = write_report(results, out)
    show(results)
    for check in results.checks:
        for line in check.found:
            say(f"[yellow]{_plain(check.name)}:[/] ", line)
    say("", f"Look at {page}")


def show_subsets(results: BenchmarkResults) -> None:
    """Print the accuracy of every judge on every subset of the main comparison, mean over samples and seeds."""
    main = _main_rows(results)
    wide = main.pivot_table(index="subset", columns="judge", values="accuracy", sort=False, observed=True)
    table = _table("Accuracy, mean over seeds", "criterion", *map(str, wide.columns))
    for name, row in wide.iterrows():
        table.add_row(_plain(name), *(f"{value:.3f}" for value in row), end_section=name == wide.index[-1])
    if len(wide) > 1:
        table.add_row("mean", *(f"{value:.3f}" for value in wide.mean(skipna=False)))
    _print(table)


def show_standings(results: BenchmarkResults) -> None:
    """Print the accuracy of every judge in every benchmark's main comparison, mean over subsets, with its interval.

    Pairs come before single responses, which also have an AUC if both labels are among them.
    """
    from arm_lens.evaluation.standings import mean_over_subsets, measure_over_subsets

    def interval(row: Any) -> str:
        return f"{row.ci_low:.3f} to {row.ci_high:.3f}"

    for name, rows in _main_rows(results).groupby("benchmark", sort=False, observed=True):
        items = rows.groupby("judge", sort=False)["n"].sum().to_dict()
        means = mean_over_subsets(rows).sort_values("accuracy", ascending=False, kind="stable")
        areas: dict[Any, Any] = {row.judge: row for row in measure_over_subsets(rows, "auc").itertuples()}
        graded = ["AUC", "95 % interval"] if areas else []
        title = f"{_plain(name)}: accuracy{' and AUC' if areas else ''}, mean over subsets"
        table = _table(title, "judge", "accuracy", "95 % interval", "items", *graded)
        for row in means.itertuples():
            area = areas.get(row.judge)
            more = ["–", "–"] if area is None or area.auc != area.auc else [f"{area.auc:.3f}", interval(area)]
            known = f"{row.accuracy:.3f}", interval(row), str(items[row.judge])
            table.add_row(_plain(row.judge), *known, *(more if areas else []))
        _print(table)


def _main_rows(results: BenchmarkResults) -> pd.DataFrame:
    from arm_lens.evaluation.main_setting import main_rows

    return main_rows(results.tables.summary, results.settings)


def _table(title: str, *columns: str) -> Table:
    """A table with names on the left and numbers on the right."""
    table = Table(title=title)
    for number, column in enumerate(columns):
        table.add_column(
            _plain(column),
            justify="right" if number else "left",
            min_width=NUMBER_WIDTH if number else NAME_WIDTH,
            overflow="fold",
        )
    return table


def _print(table: Table) -> None:
    """Print a table, as narrow as the terminal if all names and numbers have their least width."""
    count = len(table.columns)
    least = NAME_WIDTH + NUMBER_WIDTH * (count - 1) + 3 * count + 1  # with a space on either side, and lines between
    if console.width < least:
        table.width = least
    console.print(table, crop=False)
