"""The results of a run, in tidy tables, on disk and back."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pandas as pd

from arm_lens.display import card, frame_table, frame_text, sizes, small_print

ROW_FIELDS = ("criterion", "method", "seed", "accuracy", "ci_low", "ci_high", "n", "heads", "n_heads")
TABLES = ("items", "heads", "history")
SIZES = {"criterion": "criteria", "method": "methods", "seed": "seeds"}


@dataclass(frozen=True, eq=False)
class RunResults:
    """Everything tables and figures are made from."""

    meta: Mapping[str, Any]
    """What was run: model, data, seeds, versions."""
    rows: pd.DataFrame
    """One row per criterion, method and seed: accuracy with its 95 % interval, n, and the heads ([[layer, head], ...];
    empty where none is written, None for random ones)."""
    items: pd.DataFrame
    """One row per criterion, method, seed and item: label, reward, gap, correct."""
    heads: pd.DataFrame
    """One row per criterion, seed, layer and head: selection probability, and whether it was selected."""
    history: pd.DataFrame = field(default_factory=pd.DataFrame)
    """One row per criterion, seed and step of the search."""

    def save(self, folder: str | Path) -> Path:
        """Write ``results.json`` (meta and rows) and one Parquet file per table."""
        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        rows = self.rows[list(ROW_FIELDS)].to_dict(orient="records")
        text = json.dumps({"meta": dict(self.meta), "rows": rows}, indent=1, allow_nan=False)
        (folder / "results.json").write_text(text + "\n", encoding="utf-8")
        for name in TABLES:
            getattr(self, name).to_parquet(folder / f"{name}.parquet", index=False)
        return folder

    @classmethod
    def load(cls, folder: str | Path) -> RunResults:
        """Read what `save` wrote."""
        folder = Path(folder)
        record = json.loads((folder / "results.json").read_text(encoding="utf-8"))
        tables = {name: pd.read_parquet(folder / f"{name}.parquet") for name in TABLES}
        return cls(meta=record["meta"], rows=pd.DataFrame(record["rows"]), **tables)

    def summary(self) -> pd.DataFrame:
        """Mean accuracy over seeds, criteria as rows and methods as columns, with a last row for their mean."""
        wide = self.rows.pivot_table(index="criterion", columns="method", values="accuracy", aggfunc="mean", sort=False)
        wide.loc["mean"] = wide.mean()
        return wide

    def __repr__(self) -> str:
        if self.rows.empty:
            return "RunResults: no rows"
        size = sizes(self.rows, SIZES)
        return f"RunResults of {size}; accuracy, mean over seeds\n{frame_text(self.summary())}"

    def _repr_html_(self) -> str:
        if self.rows.empty:
            return card("Results of a run", {"rows": "none"})
        facts = {name: value for name, value in self.meta.items() if isinstance(value, (str, int))}
        facts["size"] = sizes(self.rows, SIZES)
        return card("Results of a run", facts, small_print("Accuracy, mean over seeds."), frame_table(self.summary()))
