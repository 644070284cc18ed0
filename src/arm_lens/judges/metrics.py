"""How well a judge did on a test, as it is saved with the judge: each number with its interval and its n.

A judge that is handed on says what it was measured on. What `arm_lens.benchmark.judge_preferences` returns can be given
as it is; results that were computed elsewhere are rows with the fields of `Metric`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from numbers import Integral, Real
from typing import Annotated, Any, Protocol, TypeAlias, runtime_checkable

import pandas as pd
from pydantic import Field

from arm_lens.evaluation.tables import BenchmarkTables
from arm_lens.frames import SUMMARY, checked
from arm_lens.judges.records import Printable, Record

WIDE = {"accuracy": "ci", "auc": "auc", "brier": "brier"}
"""The measures of a summary, with what the names of their intervals begin with."""
SETTING = ("judge", "n_examples", "noise")
"""The columns of a summary in which the rows of one judge agree."""
Finite = Annotated[float, Field(allow_inf_nan=False)]


class Metric(Record):
    """A number that was measured, with its interval of 95 %."""

    metric: Annotated[Printable, Field(min_length=1)]
    """What was measured, such as ``accuracy``."""
    benchmark: Printable
    subset: Printable
    value: Finite
    low: Finite
    high: Finite
    n: Annotated[int, Field(ge=1)]
    """Of the items behind the number."""


COLUMNS = tuple(Metric.model_fields)


@runtime_checkable
class HasTables(Protocol):
    """Results with tables, such as `arm_lens.benchmark.BenchmarkResults`."""

    @property
    def tables(self) -> BenchmarkTables:
        """The tables."""


Metrics: TypeAlias = HasTables | BenchmarkTables | pd.DataFrame | Sequence[Mapping[str, Any]]
"""Results of one judge: what `arm_lens.benchmark.judge_preferences` returns, its ``tables`` or its table ``summary``; or
rows of metric, value, low, high, n and, if there are any, benchmark and subset."""


def metrics_of(given: object) -> list[Metric]:
    """The numbers in results, `Metrics`, to be saved.

    Raises:
        ValueError: naming the row and the field, if a number, its interval or its n is missing or not finite, or if the
            results are not of one judge in one setting.
        TypeError: if they are not results.
    """
    if not isinstance(given, pd.DataFrame) and isinstance(given, HasTables):
        given = given.tables
    if isinstance(given, BenchmarkTables):
        given = given.summary
    if isinstance(given, pd.DataFrame):
        records: Any = _long(given) if "metric" not in given.columns else given.to_dict("records")
    else:
        records = given
    if isinstance(records, (str, Mapping)) or not isinstance(records, Sequence):
        raise TypeError(
            f"metrics are results of judge_preferences, a table, or rows of {', '.join(COLUMNS)}, not a "
            f"{type(given).__name__}: a number alone has neither n nor interval"
        )
    found = [_metric(row, index) for index, row in enumerate(records, start=1)]
    seen: set[tuple[str, str, str]] = set()
    for one in found:
        key = (one.metric, one.benchmark, one.subset)
        if key in seen:
            raise ValueError(
                f"metrics: {one.metric!r} of benchmark {one.benchmark!r}, subset {one.subset!r} is there twice"
            )
        seen.add(key)
    return found


def metrics_frame(metrics: Sequence[Metric]) -> pd.DataFrame:
    """A row for each number: the fields of `Metric`."""
    return pd.DataFrame([one.model_dump() for one in metrics], columns=COLUMNS)


def _long(summary: pd.DataFrame) -> list[dict[str, Any]]:
    """A row for each number of a table like `arm_lens.frames.SUMMARY`, without measures that are not defined."""
    needed = ("benchmark", "subset", "accuracy", "ci_low", "ci_high", "n")
    summary = checked(summary, SUMMARY.needing(*needed, key=()))
    for column in SETTING:
        values = [] if column not in summary else list(dict.fromkeys(summary[column].tolist()))
        if len(values) > 1:
            example = f"results.tables.summary.query({f'{column} == {values[0]!r}'!r})"
            raise ValueError(
                f"the metrics of one judge in one setting are saved, and the results have {len(values)} values of {column!r} "
                f"({', '.join(map(str, values[:5]))}); pass one of them, such as metrics={example}"
            )
    rows = []
    for row in summary.to_dict("records"):
        for measure, ends in WIDE.items():
            low, high = row.get(f"{ends}_low"), row.get(f"{ends}_high")
            if measure == "accuracy" or not pd.isna([row.get(measure), low, high]).all():
                where = {name: row[name] for name in ("benchmark", "subset", "n")}
                rows.append({"metric": measure, **where, "value": row.get(measure), "low": low, "high": high})
    return rows


def _metric(row: Any, index: int) -> Metric:
    if not isinstance(row, Mapping):
        raise TypeError(f"metrics, row {index}: a row is a mapping of {', '.join(COLUMNS)}, not {type(row).__name__}")
    name = f"metrics, row {index} ({row.get('metric', 'without a metric')!s})"
    if unknown := row.keys() - set(COLUMNS):
        raise ValueError(f"{name}: the field {min(map(str, unknown))!r} is unknown; a row has {', '.join(COLUMNS)}")
    for field in ("metric", "value", "low", "high", "n"):
        if field not in row:
            raise ValueError(f"{name}: there is no {field!r}; every number has n and an interval")
    for field in ("value", "low", "high", "n"):
        number = row[field]
        if isinstance(number, bool) or not isinstance(number, Real) or not math.isfinite(number):
            raise ValueError(f"{name}: {field!r} is {number!r}, not a finite number")
    low, high, n = float(row["low"]), float(row["high"]), row["n"]
    if low > high:
        raise ValueError(f"{name}: the interval begins at {low} and ends at {high}")
    if not (isinstance(n, Integral) or float(n).is_integer()):
        raise ValueError(f"{name}: n is {n}, not a whole number")
    texts = {field: str(row.get(field, "")) for field in ("metric", "benchmark", "subset")}
    try:
        return Metric.parse({**texts, "value": float(row["value"]), "low": low, "high": high, "n": int(n)})
    except ValueError as error:
        raise ValueError(f"{name}: {error}") from None
