"""The tables of a study of heads: in memory, on disk, and in a few lines."""

from __future__ import annotations

import io
import json
from dataclasses import dataclass, fields
from pathlib import Path

import pandas as pd

from arm_lens.attribution import scores_of
from arm_lens.display import card, frame_table, frame_text, head_name, sizes, small_print, strongest
from arm_lens.evaluation.trust import trust_notes, with_trust
from arm_lens.storage import DamagedFileError, digest_of_bytes, write_bytes, write_json

RECORD = "study.json"
"""The digest of every table. It is written last: if it exists, all tables do."""
FIRST_HEADS = 3
"""Heads per criterion in the view of a study."""
COUNTED = {"criterion": "criteria", "measure": "measures"}
ABOUT = "Heads with the highest Shapley values, in probability of the right verdict"


@dataclass(frozen=True, eq=False)
class HeadStudy:
    """The tables of a study; the functions that make them document their columns."""

    heads: pd.DataFrame
    """criterion, seed, layer, head, probability, selected; for all known seeds."""
    trajectory: pd.DataFrame
    """criterion, step, layer, head, probability: the search, thinned; empty if no search has a trajectory."""
    attributions: pd.DataFrame
    agreement: pd.DataFrame
    interactions: pd.DataFrame
    """Empty if no criterion has two chosen heads."""
    curve: pd.DataFrame
    overlap: pd.DataFrame
    rank_correlation: pd.DataFrame
    cosines: pd.DataFrame
    """Empty with fewer than three criteria, which cannot be centred."""
    stability: pd.DataFrame
    """Empty with a single seed."""
    transfer: pd.DataFrame
    depth: pd.DataFrame
    card_attention: pd.DataFrame
    """`HeadCard.displayed_attention` of each criterion's head with the highest Shapley value, with criterion, layer, head."""
    card_tokens: pd.DataFrame
    """criterion, layer, head, and the columns of `HeadCard.tokens`."""

    def save(self, folder: str | Path) -> Path:
        """Write one Parquet file per table, and ``study.json`` last: if that exists, the study is complete."""
        folder, digests = Path(folder), {}
        (folder / RECORD).unlink(missing_ok=True)  # no mixture of this study and an older one seems complete
        for name, table in self._tables().items():
            content = table.to_parquet(index=False)
            write_bytes(folder / f"{name}.parquet", content)
            digests[name] = digest_of_bytes(content)
        write_json(folder / RECORD, {"tables": digests})
        return folder

    @staticmethod
    def is_in(folder: str | Path) -> bool:
        """Whether a complete study was saved there."""
        return (Path(folder) / RECORD).exists()

    @classmethod
    def load(cls, folder: str | Path) -> HeadStudy:
        """Read what `save` wrote.

        Raises:
            FileNotFoundError: naming the file that is missing.
            DamagedFileError: naming the file that is not what was written.
        """
        record, tables = Path(folder) / RECORD, {}
        paths = {field.name: record.with_name(f"{field.name}.parquet") for field in fields(cls)}
        for path in (record, *paths.values()):
            if not path.exists():
                raise FileNotFoundError(f"{folder} holds no study of heads: {path.name} is missing")
        try:
            digests = dict(json.loads(record.read_bytes())["tables"])
        except (ValueError, KeyError, TypeError, RecursionError) as error:
            raise DamagedFileError(f"{record} is damaged; make the study again") from error
        for name, path in paths.items():
            content = path.read_bytes()
            if digest_of_bytes(content) != digests.get(name):
                raise DamagedFileError(f"{path} was changed or damaged since it was written; make the study again")
            tables[name] = pd.read_parquet(io.BytesIO(content))
        return cls(**tables)

    def _tables(self) -> dict[str, pd.DataFrame]:
        return {field.name: getattr(self, field.name) for field in fields(self)}

    def first_heads(self, count: int = FIRST_HEADS) -> pd.DataFrame:
        """The heads with the highest Shapley values of each criterion, as text; a row per criterion, a column per rank."""
        rows = {}
        for criterion, scores in scores_of(self.attributions).items():
            found = strongest(scores.values, count)
            rows[criterion] = [
                f"{head_name(layer, head)} {float(scores.values[layer, head]):+.3f}" for layer, head in found
            ]
        return pd.DataFrame.from_dict(rows, orient="index").rename(columns=lambda rank: str(rank + 1))

    def _rows(self) -> str:
        return ", ".join(f"{name} {len(table)}" for name, table in self._tables().items() if len(table))

    def _trust(self) -> list[str]:
        """How far the cheap measures of the study agree with causal ones, on the outcome of the view."""
        table = with_trust(self.attributions)
        return trust_notes(table[table["outcome"].isin(["probability", "search"])])

    def __repr__(self) -> str:
        if self.attributions.empty:
            return "HeadStudy: no attributions"
        size = sizes(self.attributions, COUNTED)
        first = frame_text(self.first_heads())
        return "\n".join([f"HeadStudy of {size}", ABOUT, first, f"rows: {self._rows()}", *self._trust()])

    def _repr_html_(self) -> str:
        if self.attributions.empty:
            return card("Study of heads", {"attributions": "none"})
        measures = ", ".join(self.attributions["measure"].unique())
        facts = {"size": sizes(self.attributions, COUNTED), "measures": measures, "rows": self._rows()}
        notes = map(small_print, self._trust())
        return card("Study of heads", facts, small_print(f"{ABOUT}."), frame_table(self.first_heads()), *notes)
