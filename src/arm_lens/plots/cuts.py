"""Parts of tables that figures draw: one outcome, one criterion, one benchmark in one setting."""

from __future__ import annotations

import pandas as pd

from arm_lens.frames import Schema, checked, repeats_in
from arm_lens.heads import name_of


def having(table: pd.DataFrame, column: str, value: str, schema: Schema) -> pd.DataFrame:
    """The rows with this value in a column.

    Raises:
        ValueError: if there are none; the error names the values of the column.
    """
    there = [str(one) for one in table[column].unique()]
    if str(value) not in there:
        raise ValueError(f"the table '{schema.name}' has no {column} {value!r}; it has {', '.join(there)}")
    return table[table[column] == str(value)]


def only(table: pd.DataFrame, column: str, value: str | None, schema: Schema) -> pd.DataFrame:
    """The rows with this value in a column; if no value is given, the whole table, which may then have only one.

    Raises:
        ValueError: if there are none, or if there are several values and none is given.
    """
    there = [str(one) for one in table[column].unique()]
    if value is None and len(there) > 1:
        raise ValueError(f"the table '{schema.name}' has several values of {column} ({', '.join(there)}): name one")
    return table if value is None else having(table, column, value, schema)


def of_every_head(table: pd.DataFrame) -> pd.DataFrame:
    """A table like `arm_lens.frames.HEADS`, as it is.

    Raises:
        ValueError: if a search has no row for some head, as where only chosen heads are left, or models differ in size.
    """
    every = (int(table["layer"].max()) + 1) * (int(table["head"].max()) + 1)
    searches = ["criterion", *repeats_in(table)]
    for search, rows in table.groupby(searches, sort=False, dropna=False):
        if len(rows) < every:
            raise ValueError(
                f"the table 'heads' has {len(rows)} rows for {name_of(searches, search)}, and the largest model in it has "
                f"{every} heads: give a row for every head, chosen or not, and models of different sizes one at a time"
            )
    return table


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
