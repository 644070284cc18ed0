"""YAML without its surprises, and with the line of every key.

YAML 1.1, which PyYAML reads, takes ``1e-3`` for text, ``007`` for an octal number, ``1:30`` for 90, ``no`` and ``on`` for
false and true, and of a key that is given twice the last; ``<<`` merges keys that the file does not show there, and
``!!int`` makes of a value what it is not. `read_yaml` refuses all of these with their line instead of guessing what was
meant; a text in quotes is a text.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from arm_lens.storage import DamagedFileError, read_regular

Place = tuple[str | int, ...]
"""The keys and indices that lead to a value."""
MOST_BYTES, MOST_NODES, DEEPEST = 2**22, 100_000, 40
YES_AND_NO = ("labels",)
"""Mappings in whose values ``yes`` and ``no`` are truth values by intention."""
STANDARD = "tag:yaml.org,2002:"
_RESOLVER: Any = yaml.resolver.Resolver()
_EXPONENT = re.compile(r"([-+]?)(\d[\d_]*)?(?:\.(\d*))?[eE]([-+]?)(\d+)")


class YamlError(ValueError):
    """A file that is not YAML, or that YAML reads otherwise than it looks; the message names file, line and key."""


@dataclass(frozen=True)
class YamlFile:
    """What a file contains, and where."""

    path: Path
    values: Any
    lines: dict[Place, int]

    def line(self, place: Iterable[str | int]) -> int:
        """The line of the value at a place, or of what contains it; parts that are not in the file are passed over."""
        found: Place = ()
        for part in place:
            found = (*found, part) if (*found, part) in self.lines else found
        return self.lines.get(found, 1)


def read_yaml(path: Path) -> YamlFile:
    """Read a file.

    Raises:
        FileNotFoundError: if there is no such file.
        YamlError: naming the line and the key of everything that is wrong.
    """
    try:
        loader = yaml.SafeLoader(read_regular(path, most=MOST_BYTES).decode("utf-8-sig"))
        node = loader.get_single_node()
        lines: dict[Place, int] = {}
        problems = [] if node is None else list(_problems(node, (), lines))
        values = None if node is None or problems else loader.construct_document(node)
    except DamagedFileError as error:
        raise YamlError(str(error)) from error
    except yaml.MarkedYAMLError as error:  # whose text quotes the line, in which there may be a password
        line = error.problem_mark.line + 1 if error.problem_mark else 1
        raise YamlError(f"{path} is not YAML: line {line}: {error.problem}") from None
    except (yaml.YAMLError, UnicodeDecodeError, RecursionError, ValueError) as error:
        raise YamlError(f"{path} is not YAML: {error}") from error
    if problems:
        raise YamlError(listed(path, problems))
    return YamlFile(path, values, lines)


def listed(path: Path, problems: list[tuple[int, Place, str]]) -> str:
    """An error with a line for each problem: its line, its key, and what is wrong."""
    count = "one field is" if len(problems) == 1 else f"{len(problems)} fields are"
    found = (f"  line {line}, {'.'.join(map(str, place)) or 'the file'}: {what}" for line, place, what in problems)
    return "\n".join([f"{path}: {count} wrong", *found])


def meant(name: str, known: Iterable[str]) -> str:
    """The end of an error about an unknown name: the known one that is most like it, or all of them."""
    known = list(known)
    near = difflib.get_close_matches(name, known, n=1)
    return f"did you mean {near[0]!r}?" if near else f"known are {', '.join(known)}"


def _problems(node: Any, place: Place, lines: dict[Place, int]) -> Iterator[tuple[int, Place, str]]:
    line = lines[place] = node.start_mark.line + 1
    if _has_tag(node):
        yield line, place, f"write the value without the tag {node.tag.replace(STANDARD, '!!')}"
        return
    if len(place) > DEEPEST or len(lines) > MOST_NODES:
        raise ValueError(f"line {line}: aliases and lists make it too deep or too large")
    if isinstance(node, yaml.SequenceNode):
        for index, one in enumerate(node.value):
            yield from _problems(one, (*place, index), lines)
    elif isinstance(node, yaml.MappingNode):
        first: dict[str, int] = {}
        for key, value in node.value:
            here, at = (*place, str(key.value)), key.start_mark.line + 1
            if key.tag == f"{STANDARD}merge":
                yield at, here, "keys of another mapping (<<) are not seen here; write them out"
                continue
            if not isinstance(key, yaml.ScalarNode):
                yield at, place, "a key must be a single word or number"
                continue
            if key.value in first:
                yield at, here, f"given twice, first in line {first[key.value]}"
            first.setdefault(key.value, at)
            if (what := _surprise(key)) is not None:
                yield at, here, f"the key {what}"
            yield from _problems(value, here, lines)
            lines[here] = at
    elif (what := _surprise(node, yes_and_no=place[-2:-1] == YES_AND_NO)) is not None:
        yield line, place, what


def _has_tag(node: Any) -> bool:
    """Whether a value is marked as something else than YAML takes it for."""
    if isinstance(node, yaml.ScalarNode):
        return bool(node.tag != _RESOLVER.resolve(yaml.ScalarNode, node.value, (node.style is None, True)))
    return node.tag not in (f"{STANDARD}seq", f"{STANDARD}map")


def _surprise(node: Any, *, yes_and_no: bool = False) -> str | None:
    """What YAML makes of a scalar without quotes, if that is not what it looks like."""
    text, kind = node.value, node.tag.rpartition(":")[2]
    if node.style is not None:
        return None
    if kind == "bool" and text.lower() not in ("true", "false") and not yes_and_no:
        value = "true" if text.lower() in ("yes", "on") else "false"
        return f"{text} is {value} to YAML; write {value}, or '{text}' in quotes for the text"
    if kind in ("int", "float") and (":" in text or re.fullmatch(r"[-+]?0[0-9_]+", text)):
        number = text.lstrip("+-0_") or "0"
        remedy = "" if ":" in text else f"write {number}, or "
        return f"{text} is not the number that it looks like to YAML; {remedy}'{text}' in quotes for the text"
    if kind == "float" and text.lower().endswith(("inf", "nan")):
        return f"{text} is not a finite number"
    if kind == "timestamp":
        return f"{text} is a date to YAML; write '{text}' in quotes for the text"
    if kind == "str" and (found := _EXPONENT.fullmatch(text)) and (found[2] or found[3]):
        sign, whole, fraction, power, digits = found.groups()
        number = f"{sign}{whole or 0}.{fraction or 0}e{power or '+'}{digits}"
        return f"{text} is text to YAML; write {number} for the number, or '{text}' in quotes for the text"
    return None
