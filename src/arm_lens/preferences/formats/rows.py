"""A row of a source, as tables hold it and as formats read it, so that errors name the fields of the source.

Benchmarks call the prompt ``input``, ``instruction`` or ``Text``. An error about the prompt of a `PreferencePair` must
name that field, so every part keeps the name of the field it came from.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from types import MappingProxyType
from typing import Any, Literal

from arm_lens.preferences.fields import PreferenceFieldError, short_repr
from arm_lens.preferences.files import MAX_ROW_BYTES, JsonError, parse_json
from arm_lens.preferences.images import Image, as_image
from arm_lens.preferences.messages import ReadImage, as_prompt, as_response, messages_of
from arm_lens.preferences.types import LabelledResponse, Preference, PreferencePair, TiedPair
from arm_lens.preferences.verdicts import TieError, Verdicts

_LIST_OF_OBJECTS = re.compile(r"\s*\[\s*\{")
_KEYS = re.compile(r"""["']role["']\s*:|["']from["']\s*:.*?["']value["']\s*:""", re.DOTALL)
"""Those of a message; ``from`` and ``value`` are others' names, which are refused in a list too."""
_EXACT = 2**53
"""Integers from here on are not exact as floating-point numbers."""


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
    columns: Sequence[str] = ()
    """The columns of a file that states them, which may have no rows."""
    schema: Any = None
    """The Arrow types of the columns of a file that has them."""
    class_names: Mapping[str, Sequence[str]] = field(default_factory=dict)
    """The names that the numbers in a column stand for, by column: Hugging Face's ``ClassLabel``."""


@dataclass(frozen=True, kw_only=True)
class Reading:
    """How the rows of a table are read, the same for all of them."""

    format: str
    """Name of the format."""
    criterion: str = ""
    """Used if the row has no criterion."""
    verdicts: Verdicts = field(default_factory=Verdicts)
    """What labels and winners mean."""
    columns: Mapping[str, str] = field(default_factory=dict)
    """From our names to the source's, for columns that were renamed."""
    has_prompts: bool = True
    """Whether any row has a prompt; if none has, the prompt is empty, or the row's images."""
    has_images: bool = False
    """Whether any row has an image in a column of its own."""
    text_is_response: bool = True
    """Whether a column ``text`` may be the response: not in a table that has responses under another name."""
    has_winners: bool = False
    """Whether a column says which response of a pair won; then it has to say so in every row."""
    metadata: Sequence[str] = ()
    """The source's names of columns that were declared to be metadata in a list."""
    label_names: Sequence[str] = ()
    """The names of all classes that the label may be, if the source states them."""
    keep_ties: bool = False
    """Whether ties are returned rather than left out."""
    as_image: Callable[..., Image] = as_image
    """How images are read: from which folder, and from where else."""


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
    reading: Reading

    def part(self, field: str) -> Part:
        """The value of a field: text, or messages, which may be written as JSON text.

        Raises:
            PreferenceFieldError: if the row has no such field, or no value in it, or messages that cannot be read as text.
        """
        value = self.given(field)
        if isinstance(value, list) and value and all(isinstance(item, Mapping) for item in value):
            value = list(messages_of(field, value, self.read_image))
        return Part(field, value)

    def given(self, field: str) -> Any:
        """The value of a field as it is, except that messages that are written as JSON text are parsed.

        Raises:
            PreferenceFieldError: if the row has no such field, or no value in it.
        """
        value = self.cells.get(field)
        if value is None:
            raise PreferenceFieldError(field, "is missing")
        if isinstance(value, str):
            if len(value) > MAX_ROW_BYTES:
                raise PreferenceFieldError(field, f"has more than {MAX_ROW_BYTES:,} characters")
            if looks_like_messages(value):
                value = _from_json(field, value, "a list of messages")
        return value

    @property
    def read_image(self) -> ReadImage:
        """Makes an image of what the row has for one."""
        return partial(self.reading.as_image, name=f"the image in row {self.number}")

    def images(self, field: str) -> list[Image]:
        """The images in a field: one, or a list, which may be written as JSON text; none if it has no value.

        Raises:
            PreferenceFieldError: if one cannot be read; it gives the number of an image in a list.
        """
        value = self.filled().get(field, [])
        if isinstance(value, str) and value.lstrip().startswith("["):
            value = _from_json(field, value, "a list of images")
        if not isinstance(value, list):
            return [self.read_image(value, field=field)]
        return [self.read_image(one, field=f"{field}[{number}]") for number, one in enumerate(value, start=1)]

    def answers(self, field: str) -> list[Part]:
        """The answers in a list, which may be written as JSON text; each with its number in the field name.

        Raises:
            PreferenceFieldError: if the field has no list, or an empty one.
        """
        value = self.part(field).value
        if isinstance(value, str) and value.startswith("["):
            value = _from_json(field, value, "a list of answers")
        if not isinstance(value, list):
            raise PreferenceFieldError(field, f"is {short_repr(value)}, not a list of answers")
        if not value:
            raise PreferenceFieldError(field, "has no answer")
        return [Part(f"{field}[{number}]", answer) for number, answer in enumerate(value, start=1)]

    def filled(self) -> dict[str, Any]:
        """The cells that have a value other than empty text."""
        return {column: cell for column, cell in self.cells.items() if cell is not None and cell != ""}

    def text(self, field: str, *, required: bool = False) -> str:
        """A name or number in a field, as text; ``""`` if it has no value, unless it is required."""
        value = self.filled().get(field, "")
        if isinstance(value, float) and value.is_integer():  # pandas turns integers with missing values into floats
            if abs(value) >= _EXACT:
                reason = f"is {short_repr(value)}, a number that is not exact: write it as text or as an integer"
                raise PreferenceFieldError(field, reason)
            value = int(value)
        if isinstance(value, bool) or not isinstance(value, (str, int, float)):
            raise PreferenceFieldError(field, f"is {short_repr(value)}, neither text nor a number")
        if value == "" and required:
            raise PreferenceFieldError(field, "is missing")
        return str(value)

    def compared(
        self, first: str | Part, second: str | Part, winner: Literal["A", "B", "tie"], reason: str
    ) -> dict[str, str | Part]:
        """The two responses by their names in a pair that the winner decides, or in a tie.

        Raises:
            TieError: if neither won and ties are not kept; it gives the reason.
        """
        if winner == "tie":
            if not self.reading.keep_ties:
                raise TieError("", reason)
            return {"response_a": first, "response_b": second}
        return {"chosen": first, "rejected": second} if winner == "A" else {"chosen": second, "rejected": first}

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
    ) -> Preference | TiedPair:
        """A preference of a benchmark, from parts or the names of their fields; see `make` for ``parts, label, id``.

        The metadata is the format, then ``known`` without empty texts, then every column that is neither a part nor
        ``used``.
        """
        found = {name: part if isinstance(part, Part) else self.part(part) for name, part in parts.items()}
        used = {*used, "criterion", *(part.field.partition("[")[0] for part in found.values())}
        metadata = {"format": self.reading.format, **{name: value for name, value in known.items() if value != ""}}
        for column, cell in self.filled().items():
            if column not in used:
                # A column must not be overwritten by a known value of the same name.
                metadata[f"{column} (column)" if column in metadata else column] = cell
        return self.make(found, metadata, label=label, id=id)

    def make(
        self, parts: Mapping[str, Part], metadata: Mapping[str, Any], *, label: bool | None = None, id: str = ""
    ) -> Preference | TiedPair:
        """A labelled response if ``label`` is given, a tie if the parts are named so, otherwise a pair.

        The parts are the prompt and the responses, by their names in the preference; errors name the fields that they came
        from. The default id is made of the source and the row's number.
        """
        values: dict[str, Any] = {
            name: as_prompt(part.field, part.value, blank=not self.reading.has_prompts, read_image=self.read_image)
            if name == "prompt"
            else as_response(part.field, part.value, read_image=self.read_image)
            for name, part in parts.items()
        }
        values["criterion"] = self.text("criterion") or self.reading.criterion
        values["id"] = id or (f"{self.table.name}:{self.number}" if self.table.path else f"row {self.number}")
        if label is not None:
            return LabelledResponse(**values, label=label, metadata=metadata)
        if "response_a" in parts:
            return TiedPair(**values, metadata=metadata)
        try:
            return PreferencePair(**values, metadata=metadata)
        except PreferenceFieldError as error:  # the responses are the same
            raise PreferenceFieldError(parts[error.field].field, error.reason) from error


def looks_like_messages(text: str) -> bool:
    """Whether a text is read as a JSON list of messages; it need not be valid, such as the repr of a Python list."""
    return bool(_LIST_OF_OBJECTS.match(text)) and bool(_KEYS.search(text))


def _from_json(field: str, text: str, what: str) -> Any:
    try:
        return parse_json(text.encode())
    except (JsonError, UnicodeEncodeError) as error:
        raise PreferenceFieldError(field, f"looks like {what}, but {error}") from error
