"""A row of a source, as tables hold it and as formats read it, so that errors name the fields of the source.

Benchmarks call the prompt ``input``, ``instruction`` or ``Text``. An error about the prompt of a `PreferencePair` must
name that field, so every part keeps the name of the field it came from.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Any

from arm_lens.preferences.messages import PreferenceFieldError, as_prompt, as_response, short_repr
from arm_lens.preferences.types import LabelledResponse, Preference, PreferencePair


@dataclass(frozen=True, kw_only=True)
class Row:
    """One row of a source: its cells by column, or the fault that made it unreadable."""

    number: int
    """Number of the row, counted from 1."""
    cells: Mapping[str, Any] = field(default_factory=dict)
    fault: str = ""


@dataclass(frozen=True, kw_only=True)
class Table:
    """The rows of a source, and what is needed to read them."""

    name: str
    """Name of the source in problems."""
    rows: Sequence[Row]
    path: Path | None = None
    """The absolute path, if the source is a file."""
    text_cells: bool = False
    """Whether a cell may hold a conversation as JSON text."""


@dataclass(frozen=True)
class Part:
    """A prompt or response, and the field it came from."""

    field: str
    value: Any


@dataclass(frozen=True)
class Record:
    """One row, as the ``read`` function of a format takes it."""

    table: Table
    number: int
    cells: Mapping[str, Any]
    """The cells by column, as plain Python types; None if they have no value."""
    format: str
    """Name of the format."""
    criterion: str
    """Used if the row has no criterion."""

    def part(self, field: str) -> Part:
        """The value of a field.

        Raises:
            PreferenceFieldError: if the row has no such field, or no value in it.
        """
        value = self.cells.get(field)
        if value is None:
            raise PreferenceFieldError(field, "is missing")
        return Part(field, value)

    def filled(self) -> dict[str, Any]:
        """The cells that have a value other than empty text."""
        return {column: cell for column, cell in self.cells.items() if cell is not None and cell != ""}

    def text(self, field: str, *, required: bool = False) -> str:
        """A name or number in a field, as text; ``""`` if it has no value, unless it is required."""
        value = self.filled().get(field, "")
        if isinstance(value, float) and value.is_integer():  # pandas turns integers with missing values into floats
            value = int(value)
        if isinstance(value, bool) or not isinstance(value, (str, int, float)):
            raise PreferenceFieldError(field, f"is {short_repr(value)}, neither text nor a number")
        if value == "" and required:
            raise PreferenceFieldError(field, "is missing")
        return str(value)

    def choice(self, field: str, choices: Collection[str]) -> str:
        """The value of a field, as text, which has to be one of the choices.

        Raises:
            PreferenceFieldError: if it is not one of them.
        """
        value = self.part(field).value
        if isinstance(value, bool) or (text := self.text(field).strip()) not in choices:
            raise PreferenceFieldError(field, f"is {short_repr(value)}, not one of {', '.join(choices)}")
        return text

    def preference(
        self,
        parts: Mapping[str, str | Part],
        *,
        label: bool | None = None,
        id: str = "",
        used: Collection[str] = (),
        known: Mapping[str, Any] = MappingProxyType({}),
    ) -> Preference:
        """A preference of a benchmark, from parts or the names of their fields; see `make` for ``parts, label, id``.

        The metadata is the format, then ``known`` without empty texts, then every column that is neither a part nor
        ``used``.
        """
        found = {name: part if isinstance(part, Part) else self.part(part) for name, part in parts.items()}
        used = {*used, "criterion", *(part.field.partition("[")[0] for part in found.values())}
        metadata = {"format": self.format, **{name: value for name, value in known.items() if value != ""}}
        for column, cell in self.filled().items():
            if column not in used:
                # A column must not be overwritten by a known value of the same name.
                metadata[f"{column} (column)" if column in metadata else column] = cell
        return self.make(found, metadata, label=label, id=id)

    def make(
        self, parts: Mapping[str, Part], metadata: Mapping[str, Any], *, label: bool | None = None, id: str = ""
    ) -> Preference:
        """A labelled response if ``label`` is given, otherwise a pair; errors name the fields that the parts came from.

        The parts are the prompt and the responses, by their names in the preference. The default id is made of the
        source and the row's number.
        """
        checks = {name: as_prompt if name == "prompt" else as_response for name in parts}
        values: dict[str, Any] = {name: checks[name](part.field, part.value) for name, part in parts.items()}
        values["criterion"] = self.text("criterion") or self.criterion
        values["id"] = id or (f"{self.table.name}:{self.number}" if self.table.path else f"row {self.number}")
        if label is not None:
            return LabelledResponse(**values, label=label, metadata=metadata)
        try:
            return PreferencePair(**values, metadata=metadata)
        except PreferenceFieldError as error:  # the responses are the same
            raise PreferenceFieldError(parts[error.field].field, error.reason) from error
