"""The registry of formats, and the rule that recognises a format by the columns of a source.

The *signature* of a format is the fields that it needs and those that distinguish it. A format *fits* columns that
include its signature. If several fit, the one whose signature includes all the others' is chosen: RewardBench has TRL's
fields and more. If there is no such format, the source is refused as ambiguous, since nothing is guessed. Two formats
with the same signature could not be told apart, so the registry refuses the second, unless it is read by name only.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

from arm_lens.preferences.formats.rows import Record
from arm_lens.preferences.types import Preference, TiedPair


@dataclass(frozen=True, kw_only=True)
class Format:
    """One published form of preference data."""

    name: str
    """The argument ``format`` of `read_preferences`."""
    title: str
    """What it is, and who published it."""
    fields: tuple[frozenset[str], ...]
    """The fields that a row needs; any one of these sets is enough."""
    distinguishing: frozenset[str] = frozenset()
    """Further fields that distinguish it from formats that need the same; optional if the format is named."""
    by_name_only: bool = False
    """Whether it is never recognised, because another format has the same fields."""
    fits: Callable[[Mapping[str, Any]], bool] | None = None
    """Whether the cells of the first row are those of the format, if it is not recognised by its fields alone."""
    read: Callable[[Record], list[Preference | TiedPair]]
    """Returns all preferences in a row, or raises a `PreferenceFieldError` that names the field, or a `TieError`."""
    key_field: str = ""
    """If the data is one object with lists of rows by a key: the field that the keys stand for."""
    files: tuple[str, ...] = ()
    """If the data may be a folder: the patterns of its files."""

    def signatures(self) -> list[frozenset[str]]:
        """The sets of fields it is recognised by."""
        return [fields | self.distinguishing for fields in self.fields]

    def signature_in(self, columns: Collection[str]) -> frozenset[str]:
        """The largest of its signatures that the columns include; empty if there is none."""
        included = (signature for signature in self.signatures() if signature <= set(columns))
        return max(included, key=len, default=frozenset())

    def missing(self, columns: Collection[str]) -> list[str]:
        """The needed fields that the columns lack; if several sets would do, those of the most complete one."""
        return min((sorted(fields - set(columns)) for fields in self.fields), key=len)


_FORMATS: dict[str, Format] = {}


def register(format: Format) -> None:
    """Add a format to the registry.

    Raises:
        ValueError: if another format has the same name or the same signature.
    """
    if format.name in _FORMATS:
        raise ValueError(f"a format named {format.name!r} is already registered")
    for other in registered():
        same = set(other.signatures()) & set(format.signatures())
        if same and not (format.by_name_only or other.by_name_only):
            raise ValueError(f"the formats {other.name!r} and {format.name!r} have the same fields")
    _FORMATS[format.name] = format


def registered(name: str | None = None) -> list[Format]:
    """All registered formats, or the one of that name."""
    return list(_FORMATS.values()) if name is None else [format_named(name)]


def known_formats() -> tuple[str, ...]:
    """The names that `read_preferences` accepts as ``format``."""
    return tuple(_FORMATS)


def format_named(name: str) -> Format:
    """The format of that name.

    Raises:
        ValueError: if there is none; it lists the known formats.
    """
    if name not in _FORMATS:
        raise ValueError(f"format is {name!r}, not one of {', '.join(known_formats())}")
    return _FORMATS[name]


def recognise(columns: Collection[str], first: Mapping[str, Any] = MappingProxyType({})) -> Format | None:
    """The format of rows with these columns and a first row with these cells; None if no format fits.

    Raises:
        ValueError: if several formats fit, and none of them includes the others.
    """
    formats = [one for one in registered() if not one.by_name_only and (one.fits is None or one.fits(first))]
    fitting = {format: signature for format in formats if (signature := format.signature_in(columns))}
    for format, signature in fitting.items():
        if all(other <= signature for other in fitting.values()):
            return format
    if fitting:
        names = ", ".join(format.name for format in fitting)
        raise ValueError(f"could be any of {names}: pass format=... to choose one")
    return None
