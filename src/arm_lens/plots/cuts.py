"""What figures cut out of their tables: one outcome, one criterion, one benchmark in one setting."""

from __future__ import annotations

import pandas as pd

from arm_lens.frames import Schema, checked


def having(table: pd.DataFrame, column: str, value: str, schema: Schema) -> pd.DataFrame:
    """The rows with this value in a column.

    Raises:
        ValueError: if there is none such, naming the values that there are.
    """
    there = [str(one) for one in table[column].unique()]
    if value not in there:
        raise ValueError(f"the table '{schema.name}' has no {column} {value!r}; it has {', '.join(there)}")
    return table[table[column] == value]


def only(table: pd.DataFrame, column: str, value: str | None, schema: Schema) -> pd.DataFrame:
    """The rows with this value in a column; without one, the whole table, which may then hold only one.

    Raises:
        ValueError: if there is none such, or there are several and none is named.
    """
    there = [str(one) for one in table[column].unique()]
    if value is None and len(there) > 1:
        raise ValueError(f"the table '{schema.name}' has several values of {column} ({', '.join(there)}): name one")
    return table if value is None else having(table, column, value, schema)


def one_setting(table: pd.DataFrame, benchmark: str | None, schema: Schema) -> pd.DataFrame:
    """The rows of one benchmark, where each judge (or pair of judges) has a single one on each subset.

    Raises:
        ValueError: naming a missing column, the benchmarks if there are several and none is named, or a judge and a subset
            with several rows.
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
