"""Errors and warnings about preference data, each with the source, row and field it is about."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from arm_lens.preferences.images import MISSING_IMAGE
from arm_lens.preferences.types import Preference, TiedPair
from arm_lens.safe_text import printable

MAX_LISTED = 20
"""How many problems a message lists; it only counts the others."""


@dataclass(frozen=True, kw_only=True)
class PreferenceProblem:
    """One thing that is wrong, and where."""

    source: str
    """Name of the file, or the kind of table."""
    row: int | None = None
    """Number of the row, counted from 1 (for ``.jsonl``: the line of the file); None for the source as a whole."""
    field: str = ""
    """Name of the field; empty for the row as a whole."""
    message: str

    def __str__(self) -> str:
        row = "" if self.row is None else f", row {self.row}"
        return printable(f"{self.source}{row}{f', field {self.field}' if self.field else ''}: {self.message}")


class PreferenceDataError(ValueError):
    """Preference data could not be read; all problems are reported together."""

    def __init__(
        self,
        problems: Sequence[PreferenceProblem],
        good: Sequence[Preference | TiedPair] = (),
        n_rows: int | None = None,
    ) -> None:
        super().__init__(problems, good, n_rows)
        self.problems = tuple(problems)
        """All problems, in the order of the rows."""
        self.good = list(good)
        """The preferences from the rows that could be read."""
        self.n_rows = len(self.problems) + len(self.good) if n_rows is None else n_rows
        """The number of rows; a row may hold several preferences, or none."""

    def __str__(self) -> str:
        if len(self.problems) == 1 and self.problems[0].row is None:
            return str(self.problems[0])
        can_skip = len(self.problems) < self.n_rows
        return self.report() + ("\nPass on_error='skip' to leave these rows out" if can_skip else "")

    def report(self) -> str:
        """How many rows could not be read, and the first of them with what is wrong."""
        missing = sum(MISSING_IMAGE in problem.message for problem in self.problems)
        counted = f", {missing} of them because an image is missing" if missing else ""
        lines = [f"{len(self.problems)} of {self.n_rows} rows could not be read{counted}"]
        lines += [f"  {problem}" for problem in self.problems[:MAX_LISTED]]
        if len(self.problems) > MAX_LISTED:
            lines.append(f"  and {len(self.problems) - MAX_LISTED} more")
        return "\n".join(lines)


class PreferenceDataWarning(UserWarning):
    """Part of the preference data was left out (rows that could not be read, or ties), or contradicts another part."""


def unreadable(source: str, message: str) -> PreferenceDataError:
    """The error for a source that cannot be read as a whole."""
    return PreferenceDataError([PreferenceProblem(source=source, message=message)])
