"""Rows of cells in text: CSV and TSV, whatever ends their lines.

csv does the parsing. Cells stay text: 'NA', '1' and 'true' are words unless a field needs another type.
"""

from __future__ import annotations

import csv
import io
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence

from arm_lens.preferences.files import MAX_ROW_BYTES, utf16_hint
from arm_lens.preferences.formats.rows import Row
from arm_lens.preferences.problems import unreadable


class Literal(csv.excel_tab):
    """Tabs and line breaks divide the cells; a quote is a character like any other."""

    quoting = csv.QUOTE_NONE


def check_names(columns: Iterable[str], name: str) -> None:
    """Refuse a table that has two columns of one name."""
    repeated = [column for column, count in Counter(columns).items() if count > 1]
    if repeated:
        raise unreadable(name, f"two columns are named {repeated[0]!r}")


def is_grid(data: bytes) -> bool:
    """Whether all lines have the same number of tabs, so that no cell can have gone beyond its line."""
    found = (line for line in re.split(rb"[\r\n]+" if _ends_with_returns(data) else rb"\r?\n", data) if line)
    return len({line.count(b"\t") for line in found}) == 1


def divided_row(data: bytes, rows: Iterable[Row]) -> int:
    """The number of the first row with a cell that goes over several lines; 0 if there is none."""
    end = "\r" if _ends_with_returns(data) else "\n"
    return next((row.number for row in rows if any(end in cell for cell in row.cells.values())), 0)


def parse_cells(data: bytes, name: str, dialect: type[csv.Dialect], *, positional: bool) -> Iterator[Row]:
    """The rows of a text: the first one has the names of the columns, unless cells are known by position.

    Raises:
        PreferenceDataError: if the text is not UTF-8, or its quotes are misplaced.
    """
    csv.field_size_limit(max(csv.field_size_limit(), MAX_ROW_BYTES))  # a response may be longer than csv's limit
    returns = _returns_in_cells(data)
    mark = _mark(data) if returns else ""
    marked = (returns.sub(mark, line) if returns and mark else line for line in lines(data))
    reader = csv.reader(marked, dialect, strict=True)
    header: list[str] = []
    number = 0  # of the row that is being read
    try:
        for cells in reader:
            if not cells:
                continue
            if mark:
                cells = [cell.replace(mark, "\r") for cell in cells]
            if not header and not positional:
                header, number = cells, 1
                check_names(header, name)
                continue
            number = max(number, 1)
            header = header or list(map(str, range(1, len(cells) + 1)))
            if number == 1 and positional and len(cells) > 1 and _is_range(cells):
                yield Row(number=1, fault="numbers the columns: write names into it, and map columns by name")
            elif len(cells) == len(header):
                yield Row(number=number, cells=dict(zip(header, cells, strict=True)))
            else:
                first = "row 1" if positional else "the header"
                fault = f"has {len(cells)} cells, but {first} has {len(header)}: {','.join(cells)[:80]!r}"
                yield Row(number=number, fault=fault)
            number += 1
    except csv.Error as error:
        reasons = {
            "unexpected end of data": "opens a quote that is never closed",
            "field larger": f"has a cell of more than {MAX_ROW_BYTES:,} characters",
            "new-line character": "has a carriage return in a cell without quotes",
            "expected after": "has text after the closing quote of a cell (a quote within a cell is written twice)",
        }
        reason = next((words for mark, words in reasons.items() if mark in str(error)), str(error))
        raise unreadable(name, f"is damaged: {_where(number, header, positional)} {reason}") from error
    except UnicodeDecodeError:
        raise unreadable(name, f"is damaged: {_undecodable(data)}{utf16_hint(data)}") from None
    except _LongLineError:
        message = (
            f"is damaged: {_where(number, header, positional)} has a line of more than {MAX_ROW_BYTES:,} characters"
        )
        raise unreadable(name, message) from None


def _is_range(cells: Sequence[str]) -> bool:
    """Whether cells are the numbers that pandas gives to columns without a name, perhaps behind that of an index."""
    numbers = list(cells[1:] if cells[0] == "" else cells)
    return any(numbers == [str(first + index) for index in range(len(numbers))] for first in (0, 1))


def _where(number: int, header: Sequence[str], positional: bool) -> str:
    return f"row {max(number, 1)}" if header or positional else "the header"


def _undecodable(data: bytes) -> str:
    """Which line of a text is not UTF-8, and why."""
    try:
        data.decode()
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        return f"line {line} is not text in UTF-8: it has the byte 0x{data[error.start]:02x} ({error.reason})"
    raise AssertionError("the text is UTF-8")


class _LongLineError(Exception):
    """A line that is too long to be divided into cells."""


def lines(data: bytes) -> Iterator[str]:
    """The lines of a text with their ends, decoded piece by piece."""
    newline = "" if _ends_with_returns(data) else "\n"
    with io.TextIOWrapper(io.BytesIO(data), "utf-8-sig", newline=newline) as text:
        while line := text.readline(MAX_ROW_BYTES + 1):
            if len(line) > MAX_ROW_BYTES:
                raise _LongLineError
            yield line


def _ends_with_returns(data: bytes) -> bool:
    """Whether lines end with carriage returns alone, as those of old Macs do, and not only texts have them."""
    return _first_end(data) == b"\r" and data.count(b"\r") - data.count(b"\r\n") > data.count(b"\n")


def _first_end(data: bytes) -> bytes:
    found = re.search(rb"\r\n|\r|\n", data)
    return found[0] if found else b""


def _returns_in_cells(data: bytes) -> re.Pattern[str] | None:
    """The carriage returns that end no line: pandas writes them without quotes, and csv would take them for ends."""
    if b"\r" not in data or _ends_with_returns(data):
        return None
    ends_with_feeds = _first_end(data) == b"\n" and 2 * data.count(b"\r\n") < data.count(b"\n")
    return re.compile("\r" if ends_with_feeds else "\r(?!\n)")


def _mark(data: bytes) -> str:
    """A character of private use that is not in the data; ``""`` if all are."""
    return next((mark for mark in map(chr, range(0xE000, 0xF900)) if mark.encode() not in data), "")
