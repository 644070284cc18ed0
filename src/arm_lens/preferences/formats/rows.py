"""A row of a benchmark and the parts it is made of, so that errors name the fields of the source.

Benchmarks call the prompt ``input``, ``instruction`` or ``Text``. An error about the prompt of a `PreferencePair` must
name that field, so every part keeps the name of the field it came from.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, TypeVar

from arm_lens.preferences.sources import is_missing, to_python
from arm_lens.preferences.types import (
    LabelledResponse,
    PreferenceFieldError,
    PreferencePair,
    as_prompt,
    as_response,
    short_repr,
)

_NOTHING: Mapping[str, Any] = MappingProxyType({})
_Example = TypeVar("_Example", PreferencePair, LabelledResponse)


@dataclass(frozen=True)
class Part:
    """A prompt or response, and the field it came from."""

    field: str
    value: Any


@dataclass(frozen=True, kw_only=True)
class Record:
    """One row of a source, as the ``read`` function of a format takes it."""

    format: str
    """Name of the format."""
    cells: Mapping[str, Any]
    """The cells by column."""
    default_id: str
    """Used if the row has no id: ``file.jsonl:3``."""
    number: int
    """Number of the row, counted from 1."""
    path: tuple[str, ...] = ()
    """The parts of the file's path, if the source is a file."""
    criterion: str = ""
    """Used if the row has no criterion."""
    text_cells: bool = False
    """Whether a cell may hold a conversation as JSON."""

    def part(self, field: str) -> Part:
        """The value of a field, as plain Python types.

        Raises:
            PreferenceFieldError: if the row has no such field, or no value in it.
        """
        value = self.cells.get(field)
        if value is None or (is_missing(value) and value != ""):  # empty text is reported later, as blank
            raise PreferenceFieldError(field, "is missing")
        return Part(field, to_python(value))

    def text(self, field: str) -> str:
        """A name or number in a field, as text; ``""`` if it has no value."""
        value = to_python(self.cells.get(field))
        if is_missing(value):
            return ""
        if isinstance(value, float) and value.is_integer():  # pandas turns integers with missing values into floats
            value = int(value)
        if isinstance(value, bool) or not isinstance(value, (str, int, float)):
            raise PreferenceFieldError(field, f"is {short_repr(value)}, neither text nor a number")
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

    def pair(
        self,
        *,
        prompt: Part,
        chosen: Part,
        rejected: Part,
        id: str = "",
        used: Collection[str] = (),
        known: Mapping[str, Any] = _NOTHING,
    ) -> PreferencePair:
        """A pair. Its metadata is ``known``, then every column that is neither in these parts nor in ``used``."""
        parts = {"prompt": prompt, "chosen": chosen, "rejected": rejected}
        return self._make(PreferencePair, parts, {}, id, used, known)

    def response(
        self,
        *,
        prompt: Part,
        response: Part,
        label: bool,
        id: str = "",
        used: Collection[str] = (),
        known: Mapping[str, Any] = _NOTHING,
    ) -> LabelledResponse:
        """A labelled response, with metadata as in `pair`."""
        parts = {"prompt": prompt, "response": response}
        return self._make(LabelledResponse, parts, {"label": label}, id, used, known)

    def _make(
        self,
        kind: Callable[..., _Example],
        parts: Mapping[str, Part],
        label: Mapping[str, bool],
        id: str,
        used: Collection[str],
        known: Mapping[str, Any],
    ) -> _Example:
        used = {*used, "criterion", *(part.field.partition("[")[0] for part in parts.values())}
        metadata = {"format": self.format, **{name: value for name, value in known.items() if value != ""}}
        for column, cell in self.cells.items():
            if column not in used and not is_missing(cell):
                # A column must not be overwritten by a known value of the same name.
                metadata[f"{column} (column)" if column in metadata else column] = to_python(cell)
        criterion = self.text("criterion") or self.criterion
        checks = {name: as_prompt if name == "prompt" else as_response for name in parts}
        values = {name: checks[name](part.field, part.value) for name, part in parts.items()}
        try:
            return kind(**values, **label, criterion=criterion, id=id or self.default_id, metadata=metadata)
        except PreferenceFieldError as error:  # two equal responses
            field = parts[error.field].field if error.field in parts else error.field
            raise PreferenceFieldError(field, error.reason) from error
