"""What the labels and winners of a source mean, as its owner declares it.

A *label* says whether a response meets the criterion. Without a declaration, ``true``, ``yes`` and ``1`` mean that it does,
``false``, ``no`` and ``0`` that it does not, in any case; every other label is an error. Declare others by name
(``labels={"joy": True, "anger": False}``), or ratings by a threshold (``labels=">= 4"``).

A *winner* says which of two responses is the better one: ``A``, ``B`` or ``tie``, or the name of the response's column.
Declare others by name (``winner={"A>B": "A", "B>A": "B", "A=B": "tie"}``, ``winner={0: "A", 1: "B", 2: "tie"}``). If
the columns are ``chosen`` and ``rejected``, A is the first and B the second.

``"drop"`` in place of a meaning leaves such rows out. A declaration has to be complete: a value that it does not map is an
error. So is a column that looks as if it said which response won and that nothing declares, since reading it as
metadata could turn every second preference round.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass
from operator import ge, gt, le, lt
from typing import Any, Literal, TypeAlias

from arm_lens.preferences.fields import PreferenceFieldError, short_repr

Labels: TypeAlias = Mapping[Any, bool | str] | str | None
"""From labels to True, False or ``"drop"``; or a threshold such as ``">= 4"``."""
Winner: TypeAlias = Mapping[Any, str] | None
"""From values to ``"A"``, ``"B"``, ``"tie"`` or ``"drop"``."""

DROP = "drop"
MAX_DISTINCT = 20
"""How many different values an error lists, and a column has that says which of two responses won."""
MAX_LENGTH = 40
"""How many characters such a value has."""

_SPELLINGS = {"true": True, "yes": True, "1": True, "false": False, "no": False, "0": False}
_MEANINGS = {"a": "A", "b": "B", "tie": "tie", DROP: DROP}
_COMPARE: dict[str, Callable[[float, float], bool]] = {">=": ge, "<=": le, ">": gt, "<": lt}
_NUMBER = re.compile(r"[-+]?(\d+\.?\d*|\.\d+)(e[-+]?\d+)?", re.IGNORECASE | re.ASCII)
_INTEGER = re.compile(r"-?\d+\.0+", re.ASCII)
"""A whole number as tables of floating-point numbers have it."""
_THRESHOLD = re.compile(r"\s*(>=|<=|>|<)\s*(-?\d+(?:\.\d+)?)\s*")

_OBVIOUS = {
    "a>b": "A",
    "a>>b": "A",
    "b>a": "B",
    "b>>a": "B",
    "a=b": "tie",
    "b=a": "tie",
    "a": "A",
    "b": "B",
    "tie": "tie",
}
_OBVIOUS |= {
    "model_a": "A",
    "model_b": "B",
    "response_a": "A",
    "response_b": "B",
    "tie (bothbad)": "tie",
    "both": "tie",
}
_WINNER_NAME = re.compile(
    r"(human_?|overall_?|gold_?)?"
    r"(labels?|winner|prefer(red|ences?)?|choice|verdict|judge?ment|better|best)(_?(response|answer|output|model))?(_?id)?"
)
_TIE_WORDS = frozenset({"tie", "ties", "tied", "draw"})
_WINNER_WORDS = _TIE_WORDS | frozenset(
    "winner winners win wins won prefer prefers preferred preference preferences better best safer choice verdict vote "
    "votes judgment judgement label labels gold truth target outcome".split()
)
_OTHER_WORDS = frozenset(
    "id subset split group category topic type kind source domain language lang version batch part section set variant "
    "level".split()
)
"""A column with such a name may have the values a and b without saying who won."""
_RESPONSE_NAME = re.compile(
    r"(.*?(?:response|answer|output|completion|reply|continuation|conversation|text|summary|candidate|human_ref)s?)"
    r"[ _-]?([ab012])"
)
_WORD = re.compile(r"[A-Z]?[a-z]+|[A-Z]+|\d+")


class DroppedRowError(PreferenceFieldError):
    """A row that is left out because its label or winner was declared as ``"drop"``."""


class TieError(PreferenceFieldError):
    """A row whose annotators prefer neither response: well-formed, but no preference."""


@dataclass(frozen=True)
class Verdicts:
    """The declarations of a source, checked.

    Raises:
        ValueError: if a declaration is empty, has a meaning that is none, or gives one value two meanings.
    """

    labels: Labels = None
    winner: Winner = None

    def __post_init__(self) -> None:
        if isinstance(self.labels, str):
            _threshold(self.labels)
        elif self.labels is not None:
            object.__setattr__(self, "labels", _declared("labels", self.labels, _label_meaning))
        if self.winner is not None:
            object.__setattr__(self, "winner", _declared("winner", self.winner, _winner_meaning))

    def label(self, field: str, cell: object) -> bool:
        """Whether a response with this label meets the criterion.

        Raises:
            PreferenceFieldError: if the label has no meaning.
            DroppedRowError: if rows with this label are left out.
        """
        if isinstance(self.labels, str):
            sign, limit = _threshold(self.labels)
            number = _number(cell)
            if not math.isfinite(number):
                raise PreferenceFieldError(field, f"is {short_repr(cell)}, not a number that can be {self.labels}")
            return _COMPARE[sign](number, limit)
        meaning = self.labels_known(cell)
        if meaning == DROP:
            raise DroppedRowError(field, f"is {short_repr(cell)}")
        if meaning is None:
            declared = "true, false, yes, no, 1, 0" if self.labels is None else ", ".join(map(str, self.labels))
            hint = (
                ""
                if self.labels is not None
                else f"; declare what it means with labels={{{value_text(cell)!r:.60}: ...}}"
            )
            raise PreferenceFieldError(field, f"is {short_repr(cell)}, not one of {declared}{hint}")
        return bool(meaning)

    def labels_known(self, cell: object) -> bool | str | None:
        """The meaning of a label; None if it has none."""
        text = value_text(cell)
        if isinstance(self.labels, Mapping):
            return self.labels.get(text)
        return _SPELLINGS.get(text.lower())

    def winner_of(self, field: str, cell: object, names: tuple[str, str]) -> Literal["A", "B", "tie"]:
        """Which of two responses won, or that neither did.

        Args:
            field: what errors call the column.
            cell: its value.
            names: the source's names of the two responses' columns.

        Raises:
            PreferenceFieldError: if the value has no meaning.
            DroppedRowError: if rows with this value are left out.
        """
        meaning = self.winner_known(cell, names)
        if meaning == DROP:
            raise DroppedRowError(field, f"is {short_repr(cell)}")
        if meaning is None:
            declared = ", ".join(map(str, self.winner or ("A", "B", "tie", *names)))
            raise PreferenceFieldError(field, f"is {short_repr(cell)}, not one of {declared}")
        return "tie" if meaning == "tie" else "A" if meaning == "A" else "B"

    def winner_known(self, cell: object, names: tuple[str, str]) -> str | None:
        """The meaning of a winner; None if it has none."""
        text = value_text(cell)
        if self.winner is not None:
            return self.winner.get(text)
        return {"A": "A", "B": "B", "tie": "tie", names[0]: "A", names[1]: "B"}.get(text)

    def are_columns(self, columns: Collection[str]) -> bool:
        """Whether the winner is declared by columns of which one is true in each row, and not by values of a column."""
        return self.winner is not None and "winner" not in columns and set(self.winner) <= set(columns)

    def with_winner(self, cells: Mapping[str, Any]) -> dict[str, Any]:
        """The cells of a row, with the name of the one declared column that is true in it as the winner.

        For sources with a column for each outcome: ``winner={"a_wins": "A", "b_wins": "B", "tie": "tie"}``.
        """
        names = list(self.winner or ())
        wrong = [name for name in names if value_text(cells.get(name)).lower() not in _SPELLINGS]
        marked = [name for name in names if is_marked(cells.get(name))]
        said = f"{wrong[0]}={cells.get(wrong[0])}" if wrong else ", ".join(marked) or "none of them"
        return {name: cell for name, cell in cells.items() if name not in names} | {"winner": said}


def value_text(cell: object) -> str:
    """The text by which a value is declared: ``1`` for 1, 1.0, ``"1.0"`` and ``"1 "``, ``True`` for True and ``"TRUE"``."""
    if isinstance(cell, float) and cell.is_integer():
        return str(int(cell))
    text = str(cell).strip()
    if text.lower() in ("true", "false"):
        return text.capitalize()
    return text.partition(".")[0] if _INTEGER.fullmatch(text) else text


def _number(cell: object) -> float:
    """The number that a cell is, or states as text; NaN if it does neither."""
    if isinstance(cell, bool) or not isinstance(cell, (str, int, float)):
        return math.nan
    if isinstance(cell, str) and not _NUMBER.fullmatch(cell.strip()):
        return math.nan
    try:
        return float(cell)
    except OverflowError:
        return math.nan


def _threshold(text: str) -> tuple[str, float]:
    match = _THRESHOLD.fullmatch(text)
    if match is None:
        raise ValueError(f"labels is {text!r}, neither a mapping nor a threshold such as '>= 4'")
    return match[1], float(match[2])


def _declared(option: str, meanings: Mapping[Any, Any], meaning_of: Callable[[Any], Any]) -> dict[str, Any]:
    example = "{'joy': True, 'anger': False}" if option == "labels" else "{'A>B': 'A', 'B>A': 'B'}"
    if not isinstance(meanings, Mapping):
        raise ValueError(
            f"{option} is a {type(meanings).__name__}; pass what each value means, as in {option}={example}"
        )
    if not meanings:
        raise ValueError(f"{option} maps nothing")
    declared: dict[str, Any] = {}
    for value, given in meanings.items():
        text, meaning = value_text(value), meaning_of(given)
        if meaning is None:
            known = "True, False or 'drop'" if option == "labels" else "'A', 'B', 'tie' or 'drop'"
            raise ValueError(f"{option} maps {value!r} to {given!r}; write {known}")
        if declared.setdefault(text, meaning) != meaning:
            raise ValueError(f"{option} maps {text!r} twice, to {declared[text]!r} and to {meaning!r}")
    return declared


def _label_meaning(given: object) -> bool | str | None:
    if isinstance(given, str):
        text = given.strip().lower()
        return DROP if text == DROP else _SPELLINGS.get(text)
    return given if isinstance(given, bool) else None


def _winner_meaning(given: object) -> str | None:
    return _MEANINGS.get(given.strip().lower()) if isinstance(given, str) else None


# ------------------------------------------------------------------------------------------------------ what looks like it


def response_columns(columns: Iterable[str]) -> tuple[str, str] | None:
    """Two columns that look like two responses to choose from, such as ``response_A`` and ``response_B``."""
    found: dict[str, dict[str, str]] = {}
    for column in columns:
        if match := _RESPONSE_NAME.fullmatch(column.strip().lower()):
            found.setdefault(match[1], {})[match[2]] = column
    for by_letter in found.values():
        for first, second in (("a", "b"), ("1", "2"), ("0", "1")):
            if {first, second} <= by_letter.keys():
                return by_letter[first], by_letter[second]
    return None


def winner_likeness(column: str, values: Collection[str]) -> int:
    """How much a column looks as if it said which of two responses won.

    3 by its name, 2 by its values, 1 by a word in its name and few values or numbers, 0 not at all.

    Args:
        column: its name.
        values: its values as text; empty for those that are neither text nor numbers.
    """
    if _WINNER_NAME.fullmatch(column.strip().lower()):
        return 3
    words = _words(column)
    texts = {value.lower() for value in values}
    if len(texts) > 1 and texts <= _OBVIOUS.keys() and not (texts == {"a", "b"} and words & _OTHER_WORDS):
        return 2
    is_short = len(texts) <= MAX_DISTINCT and all(0 < len(text) <= MAX_LENGTH for text in texts)
    return int(bool(words & _WINNER_WORDS) and (is_short or all(map(_NUMBER.fullmatch, texts))))


def says_tie(column: str) -> bool:
    """Whether a column's name has a word for a tie."""
    return bool(_words(column) & _TIE_WORDS)


def is_marked(cell: object) -> bool:
    """Whether a cell says yes, true or 1."""
    return _SPELLINGS.get(value_text(cell).lower()) is True


def _words(name: str) -> set[str]:
    return {word.lower() for word in _WORD.findall(name)}


def listed(values: Counter[str]) -> str:
    """Different values with their counts: ``'A>B' (3), 'B>A' (2)``."""
    parts = [f"{value!r:.60} ({count})" for value, count in values.most_common(MAX_DISTINCT)]
    rest = len(values) - len(parts)
    return ", ".join(parts) + (f" and {rest} more" if rest > 0 else "")


def winner_option(values: Iterable[str]) -> str:
    """The option that would declare these values, with ``...`` where the meaning is not obvious."""
    return "winner={" + ", ".join(f"{value!r}: {_guess(value)}" for value in list(values)[:MAX_DISTINCT]) + "}"


def labels_option(values: Iterable[str]) -> str:
    """The option that would declare these labels, with ``...`` for every meaning."""
    return "labels={" + ", ".join(f"{value!r}: ..." for value in list(values)[:MAX_DISTINCT]) + "}"


def _guess(value: str) -> str:
    meaning = _OBVIOUS.get(value.lower().removeprefix("winner_"))
    return "..." if meaning is None else repr(meaning)
