"""Parts of tables that figures draw: one outcome, one criterion, one benchmark in one setting."""

from __future__ import annotations

import pandas as pd

from arm_lens.frames import Schema, checked


def having(table: pd.DataFrame, column: str, value: str, schema: Schema) -> pd.DataFrame:
    """The rows with this value in a column.

    Raises:
        ValueError: if there are none; the error names the values of the column.
    """
    there = [str(one) for one in table[column].unique()]
    if value not in there:
        raise ValueError(f"the table '{schema.name}' has no {column} {value!r}; it has {', '.join(there)}")
    return table[table[column] == value]


def only(table: pd.DataFrame, column: str, value: str | None, schema: Schema) -> pd.DataFrame:
    """The rows with this value in a column; if no value is given, the whole table, which may then have only one.

    Raises:
        ValueError: if there are none, or if there are several values and none is given.
    """
    there = [str(one) for one in table[column].unique()]
    if value is None and len(there) > 1:
        raise ValueError(f"the table '{schema.name}' has several values of {column} ({', '.join(there)}): name one")
    return table if value is None else having(table, column, value, schema)


def one_setting(table: pd.DataFrame, benchmark: str | None, schema: Schema) -> pd.DataFrame:
    """The rows of one benchmark, in which each judge (or pair of judges) has one row on each subset.

    Raises:
        ValueError: if a column is missing, there are several benchmarks and none is given, or a judge has several rows on
            a subset.
    """
    here = only(checked(table, schema), "benchmark", benchmark, schema)
    keys = [column for column in ("benchmark", "subset", "judge", "other", "bin") if column in schema.required]
    twice = here[here.duplicated(keys)]
    if not twice.empty:
        where = ", ".join(f"{column} {twice.iloc[0][column]!r}" for column in keys)
        raise ValueError(
            f"the table '{schema.name}' has several rows of {where}: choose n_examples, noise and unit first"
        )
    return here
