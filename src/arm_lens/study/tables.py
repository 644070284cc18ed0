"""The tables of a study of heads: in memory, on disk and back, and in a few lines for whoever looks at them."""

from __future__ import annotations

import io
import json
from dataclasses import dataclass, fields
from pathlib import Path

import pandas as pd

from arm_lens.attribution import scores_of
from arm_lens.display import card, frame_table, frame_text, head_name, sizes, small_print, strongest
from arm_lens.storage import DamagedFileError, digest_of_bytes, write_bytes, write_json

RECORD = "study.json"
"""The digest of every table. It is written last: where it is, all are."""
FIRST_HEADS = 3
"""Heads per criterion that a study shows of itself."""
ABOUT = "Heads with the highest Shapley values, in probability of the right verdict"


@dataclass(frozen=True, eq=False)
class HeadStudy:
    """The tables of a study; columns as the functions that make them say."""

    heads: pd.DataFrame
    """criterion, seed, layer, head, probability, selected; of all seeds that are known."""
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
    """What the card of each criterion's head of the highest Shapley value shows: criterion, layer, head, and the columns of
    `HeadCard.attention`."""
    card_tokens: pd.DataFrame
    """criterion, layer, head, and the columns of `HeadCard.tokens`."""

    def save(self, folder: str | Path) -> Path:
        """Write one Parquet file per table, and ``study.json`` last: where it is, the study is whole."""
        folder = Path(folder)
        (folder / RECORD).unlink(missing_ok=True)  # no mixture of this study and an older one looks whole
        digests = {}
        for field in fields(self):
            content = getattr(self, field.name).to_parquet(index=False)
            write_bytes(folder / f"{field.name}.parquet", content)
            digests[field.name] = digest_of_bytes(content)
        write_json(folder / RECORD, {"tables": digests})
        return folder

    @staticmethod
    def is_in(folder: str | Path) -> bool:
        """Whether a whole study was saved there."""
        return (Path(folder) / RECORD).exists()

    @classmethod
    def load(cls, folder: str | Path) -> HeadStudy:
        """Read what `save` wrote.

        Raises:
            FileNotFoundError: naming the file that is missing.
            DamagedFileError: naming the file that is not what was written.
        """
        folder, tables = Path(folder), {}
        for name in (RECORD, *(f"{field.name}.parquet" for field in fields(cls))):
            if not (folder / name).exists():
                raise FileNotFoundError(f"{folder} holds no study of heads: {name} is missing")
        try:
            digests = dict(json.loads((folder / RECORD).read_bytes())["tables"])
        except (ValueError, KeyError, TypeError, RecursionError) as error:
            raise DamagedFileError(f"{folder / RECORD} is damaged; make the study again") from error
        for field in fields(cls):
            path = folder / f"{field.name}.parquet"
            content = path.read_bytes()
            if digest_of_bytes(content) != digests.get(field.name):
                raise DamagedFileError(f"{path} was changed or damaged since it was written; make the study again")
            tables[field.name] = pd.read_parquet(io.BytesIO(content))
        return cls(**tables)

    def first_heads(self, count: int = FIRST_HEADS) -> pd.DataFrame:
        """The heads with the highest Shapley values of each criterion, as text; a row per criterion, a column per place."""
        rows = {}
        for criterion, scores in scores_of(self.attributions).items():
            found = strongest(scores.values, count)
            rows[criterion] = [
                f"{head_name(layer, head)} {float(scores.values[layer, head]):+.3f}" for layer, head in found
            ]
        return pd.DataFrame.from_dict(rows, orient="index").rename(columns=lambda place: str(place + 1))

    def _size(self) -> str:
        return sizes(self.attributions, {"criterion": "criteria", "measure": "measures"})

    def _rows(self) -> str:
        counts = {field.name: len(getattr(self, field.name)) for field in fields(self)}
        return ", ".join(f"{name} {count}" for name, count in counts.items() if count)

    def __repr__(self) -> str:
        if self.attributions.empty:
            return "HeadStudy: no attributions"
        first = f"HeadStudy of {self._size()}\n{ABOUT}\n{frame_text(self.first_heads())}"
        return f"{first}\nrows: {self._rows()}"

    def _repr_html_(self) -> str:
        if self.attributions.empty:
            return card("Study of heads", {"attributions": "none"})
        facts = {
            "size": self._size(),
            "measures": ", ".join(self.attributions["measure"].unique()),
            "rows": self._rows(),
        }
        return card("Study of heads", facts, small_print(f"{ABOUT}."), frame_table(self.first_heads()))
