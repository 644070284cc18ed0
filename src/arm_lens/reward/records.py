"""How a reward model was fitted, and what is saved of it in addition to tensors."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from pydantic import PositiveInt, model_validator

from arm_lens.engine.steering import Injection
from arm_lens.judges.artefact import QuestionRecord
from arm_lens.judges.records import Record
from arm_lens.selection import RewardKind

SELECTION_COLUMNS = ("step", "reward", "expected_heads")
"""The columns that the history of every search has."""


@dataclass(frozen=True, kw_only=True)
class FitRecord:
    """How a reward model was fitted."""

    criterion: str
    """The criterion's name, for the record; the model reads the criterion text."""
    seed: int
    """The seed of the folds and the demonstrations."""
    search_seed: int | None = None
    """The seed of the search for heads; None if the heads were given."""
    demonstrations: int
    """Demonstrations in each prompt that was read."""
    readings: int
    """Prompts that were read for the means."""
    n_read: int
    """Questions that the readings were made of, asked or as demonstrations."""
    n_validation: int
    """Questions on which the heads were chosen."""
    folds: int | None = None
    """Folds of the cross-fitting; None if heads were chosen on other questions, or given."""
    reward: RewardKind
    search: dict[str, Any] | None
    """The options of the search for heads, with its ``kind``; None if the heads were given."""
    denoise: dict[str, Any] | None = None
    """The options of the denoising; None if the means are plain."""
    notes: tuple[str, ...] = ()
    """What was warned of (`FitWarning`)."""
    fitted_on: tuple[str, ...] = ()
    """Digests of the texts of all examples (`arm_lens.preferences.overlap.text_digests`), so that a test is recognised that
    has one of them."""
    data: str = ""
    """The SHA-256 of all examples, with their labels (`arm_lens.preferences.overlap.data_digest`); empty if not recorded."""


class SearchRecord(Record):
    """What is saved of a search for heads, in addition to tensors."""

    scores: str
    """What the scores are."""
    passes: float | None = None
    history: dict[str, list[int | float | str | bool | None]]

    @model_validator(mode="after")
    def _columns(self) -> SearchRecord:
        if len({len(column) for column in self.history.values()}) != 1:
            raise ValueError("the columns of the history differ in length, or there are none")
        for name in SELECTION_COLUMNS:
            if not all(isinstance(one, (int, float)) for one in self.history.get(name, [None])):
                raise ValueError(f"the history has no column {name!r} of numbers")
        return self


class RewardRecord(QuestionRecord):
    """What is saved of a reward model, in addition to tensors."""

    heads: list[tuple[int, int]]
    means_count: PositiveInt
    injection: Injection
    fit: FitRecord
    search: SearchRecord | None
