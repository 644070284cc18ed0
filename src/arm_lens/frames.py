"""The tables that cross packages: which columns each has, what they mean, and one way to check that a table has them.

Results are tidy frames: one row for each thing that was measured, whose *key* says what it is (a head of a criterion with
a seed, a judge on a subset), and one column for each fact about it. A figure or a comparison needs some of the columns of
a table that somebody else made, perhaps a user. `checked` names the table and what it lacks before anything is computed.
A `Schema` shows its columns when it is printed.

Every interval is of 95 %; ``n`` is the number of examples or items behind a number, unless a schema says otherwise.
"""

from __future__ import annotations

import math
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal

import numpy as np
import pandas as pd
from pandas.api.types import infer_dtype, is_bool_dtype, is_numeric_dtype

Kind = Literal["text", "number", "whole", "truth", "any"]
"""What a column holds: texts (or anything else that names), numbers, whole numbers, true and false, or what is not known
beforehand. An unknown number is NaN."""
REPEATS = ("sample", "seed")
"""The columns that distinguish repetitions of the same thing: which example sample, and which seed."""


@dataclass(frozen=True)
class Column:
    """One column."""

    kind: Kind
    meaning: str


@dataclass(frozen=True)
class Schema:
    """The columns of a table."""

    name: str
    """What errors call the table."""
    about: str
    """What a row is."""
    required: Mapping[str, Column]
    optional: Mapping[str, Column] = field(default_factory=dict)
    key: tuple[str, ...] = ()
    """The columns in which no two rows agree; columns that a table lacks do not count."""

    def needing(self, *columns: str, key: tuple[str, ...] | None = None) -> Schema:
        """The same table with only these columns required and all others optional, and perhaps another key."""
        known = {**self.optional, **self.required}
        required = {name: known.get(name, Column("any", "what this needs")) for name in columns}
        others = {name: column for name, column in known.items() if name not in required}
        return replace(self, required=required, optional=others, key=self.key if key is None else key)

    def __str__(self) -> str:
        lines = [f"{self.name}: {self.about}"]
        for name, column in {**self.required, **self.optional}.items():
            lines.append(f"  {name} ({column.kind}{'' if name in self.required else ', optional'}): {column.meaning}")
        return "\n".join(lines)


def checked(frame: pd.DataFrame, schema: Schema) -> pd.DataFrame:
    """The table, if it is such a one with at least one row: names as texts, whole numbers as integers, rows numbered from 0.

    Raises:
        ValueError: naming the table and the missing column, next to the columns that it has; the column and its value that
            is of another kind, infinite, or beyond what the column can be; the row that lacks a name or a truth; or the key
            that several rows have. Or saying that the table is empty.
    """
    missing = [name for name in schema.required if name not in frame.columns]
    if missing:
        known = ", ".join(map(str, frame.columns)) or "no columns"
        raise ValueError(f"the table '{schema.name}' lacks the column {', '.join(map(repr, missing))}; it has {known}")
    if frame.empty:
        raise ValueError(f"the table '{schema.name}' is empty")
    table = frame.reset_index(drop=True)
    key = [name for name in schema.key if name in table.columns]
    clean = {
        name: _clean(table, name, column, schema, key) if column.kind != "any" else table[name]
        for name, column in {**schema.optional, **schema.required}.items()
        if name in table.columns
    }
    table = table.assign(**clean)
    repeated = table[table.duplicated(key)] if key else table.iloc[:0]
    if len(repeated):
        which = ", ".join(f"{name} {value!r}" for name, value in repeated[key].to_dict("records")[0].items())
        raise ValueError(f"the table '{schema.name}' has several rows of {which}")
    return table


_KINDS = {"text": "texts", "number": "numbers", "whole": "whole numbers", "truth": "true and false"}
_ROUNDING = 1e-4
"""By which single precision may take a share beyond 0 or 1."""


def _clean(table: pd.DataFrame, name: str, column: Column, schema: Schema, key: list[str]) -> pd.Series:
    """A column with one dtype for its kind."""
    values, where = table[name], f"the column {name!r} of the table '{schema.name}'"

    def at(wrong: pd.Series) -> str:
        row = int(wrong.argmax())
        facts = [one for one, its in schema.required.items() if its.kind in ("text", "whole") and one != name]
        known = [f"{one} {table[one][row]}" for one in facts]
        return f"row {row}{' (' + ', '.join(known) + ')' if known else ''}"

    if not _holds(values, column.kind):
        example = values.dropna().iloc[0]
        raise ValueError(f"{where} should hold {_KINDS[column.kind]} ({column.meaning}), and holds {example!r}")
    unknown = values.isna()
    if unknown.any() and (column.kind == "truth" or (name in key and name not in REPEATS)):
        raise ValueError(f"{where} ({column.meaning}) holds nothing in {at(unknown)}")
    if column.kind == "text":
        if not isinstance(values.dtype, pd.CategoricalDtype) and infer_dtype(values, skipna=True) in (
            "string",
            "empty",
        ):
            return values
        return pd.Series([one if none else str(one) for one, none in zip(values, unknown, strict=True)], values.index)
    if column.kind == "truth":
        return values.astype(bool)
    numbers = values.astype(float)
    low, high = _LIMITS.get(name, (0.0 if column.kind == "whole" and name not in REPEATS else -math.inf, math.inf))
    wrong = ~unknown & ~(np.isfinite(numbers) & (numbers >= low - _ROUNDING) & (numbers <= high + _ROUNDING))
    if wrong.any():
        limits = f"from {low:g} to {high:g}" if math.isfinite(high) else "0 or more" if low == 0 else "finite"
        value = values[wrong.argmax()]
        raise ValueError(f"{where} ({column.meaning}) should be {limits}, and is {value} in {at(wrong)}")
    return values.astype("int64") if column.kind == "whole" and not unknown.any() else numbers


def _holds(values: pd.Series, kind: Kind) -> bool:
    """Whether the values are of this kind, whatever the dtype that they came in from a file."""
    if kind == "text" or is_bool_dtype(values):
        return kind in ("text", "truth")
    known = values.dropna()
    if kind == "truth":
        return bool(known.isin([True, False]).all())
    if not is_numeric_dtype(values):
        return not any(isinstance(value, str) for value in known) and is_numeric_dtype(pd.Series(known.tolist()))
    return kind == "number" or bool((known % 1 == 0).all())


def criteria_of(frame: pd.DataFrame) -> list[str]:
    """The criteria in the order in which they first appear."""
    return [str(criterion) for criterion in frame["criterion"].unique()]


def repeats_in(frame: pd.DataFrame) -> list[str]:
    """Which of `REPEATS` a table has."""
    return [name for name in REPEATS if name in frame.columns]


_FILE = tomllib.loads(Path(__file__).with_name("frames.toml").read_text(encoding="utf-8"))
_COLUMNS = {
    name: Column(kind, meaning)
    for kind, meanings in _FILE["columns"].items()
    for names, meaning in meanings.items()
    for name in names.split()
}
_LIMITS: dict[str, tuple[float, float]] = {
    name: (float(low), float(high)) for names, (low, high) in _FILE["limits"].items() for name in names.split()
}
_SUFFIXES = {  # see frames.toml
    "_a": "of the one: {}",
    "_b": "of the other: {}",
    "_low": "lower end of the interval ({})",
    "_high": "upper end of the interval ({})",
}


def _column(name: str) -> Column:
    if name in _COLUMNS:
        return _COLUMNS[name]
    suffix = next(suffix for suffix in _SUFFIXES if name.endswith(suffix))
    base = _column(name.removesuffix(suffix))
    return Column(base.kind, _SUFFIXES[suffix].format(base.meaning))


def _schema(name: str) -> Schema:
    table = _FILE["tables"][name]
    kinds, meanings = table.get("kinds", {}), table.get("meanings", {})

    def columns(names: str) -> dict[str, Column]:
        known = {column: _column(column) for column in names.replace("*", "").split()}
        return {
            column: Column(kinds.get(column, one.kind), meanings.get(column, one.meaning))
            for column, one in known.items()
        }

    required, optional = table["columns"], table.get("optional", "")
    key = tuple(column[:-1] for column in f"{required} {optional}".split() if column.endswith("*"))
    return Schema(name, table["row"], columns(required), columns(optional), key)


HEADS = _schema("heads")
HEAD_SCORES = _schema("scores")
HISTORY = _schema("history")
TRAJECTORY = _schema("trajectory")
ATTRIBUTIONS = _schema("attributions")
INTERACTIONS = _schema("interactions")
CURVE = _schema("curve")
AGREEMENT = _schema("agreement")
RANK_CORRELATION = _schema("rank_correlation")
OVERLAP = _schema("overlap")
PAIRS = _schema("pairs")
COSINES = _schema("cosines")
STABILITY = _schema("stability")
TRANSFER = _schema("transfer")
DEPTH = _schema("depth")
ATTENTION = _schema("attention")
PATCHES = _schema("patches")
TOKENS = _schema("tokens")
ITEMS = _schema("items")
ROWS = _schema("rows")
SUMMARY = _schema("summary")
COMPARISONS = _schema("comparisons")
CALIBRATION = _schema("calibration")
FITS = _schema("fits")
SECTIONS = _schema("section_scores")
EFFECTS = _schema("effects")
SPEED = _schema("speed")
