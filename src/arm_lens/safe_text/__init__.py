"""Text from strangers in a terminal and in a spreadsheet.

A terminal obeys control characters, so a file could clear the screen or hide what is printed: `printable` writes them out. A
spreadsheet computes a cell that begins with ``=``, ``+``, ``-``, ``@``, a tab or a carriage return, which can send the
rest of the table elsewhere: `without_formulas` puts an apostrophe before such text, as spreadsheets do themselves to
mark a cell as text. It is for tables of results, which are for people. Files of preferences are for programs and keep
every cell as it is.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Callable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import pandas as pd

_FORMULA = ("=", "+", "-", "@", "\t", "\r", "\n", "＝", "＋", "－", "＠")
"""The last four are full-width forms, which a spreadsheet may take for the first."""
_BIDIRECTIONAL = frozenset("\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069")


def printable(text: str) -> str:
    r"""The text with control characters written out, such as ``\x1b``; line breaks and tabs stay.

    Characters that reverse the direction of writing are written out too: they can make a text look like another one.
    """
    if text.isprintable():
        return text
    return "".join(_written_out(character) for character in text)


def _written_out(character: str) -> str:
    is_control = unicodedata.category(character) in ("Cc", "Cs") or character in _BIDIRECTIONAL
    return character if not is_control or character in "\n\t" else ascii(character)[1:-1]


def without_formulas(frame: pd.DataFrame) -> pd.DataFrame:
    """A copy of a table in which a spreadsheet takes no text for a formula; `with_formulas` is the inverse.

    Numbers are as they were. A text that begins with apostrophes before what would be a formula gets one more.
    """
    return _mapped(frame, lambda cell: f"'{cell}" if _is_formula(cell) else cell)


def with_formulas(frame: pd.DataFrame) -> pd.DataFrame:
    """The table that `without_formulas` was given."""
    return _mapped(frame, lambda cell: cell[1:] if cell.startswith("'") and _is_formula(cell[1:]) else cell)


def _is_formula(text: str) -> bool:
    return text.lstrip("'").startswith(_FORMULA)


def _mapped(frame: pd.DataFrame, change: Callable[[str], str]) -> pd.DataFrame:
    """The table with a function applied to every text in it, names of columns too."""
    import pandas as pd  # which the command line needs for results only

    def changed(cell: object) -> object:
        return change(cell) if isinstance(cell, str) else cell

    columns = {
        changed(name): frame[name] if pd.api.types.is_numeric_dtype(frame[name]) else frame[name].map(changed)
        for name in frame.columns
    }
    return pd.DataFrame(columns, index=frame.index)
