"""Errors in the language of the command line: ``labels={"joy": ...}`` is ``--label joy=...`` there.

In a benchmark's configuration it is ``labels: {joy: ...}``.
"""

from __future__ import annotations

import ast
import re
import shlex
from collections.abc import Callable
from typing import Any

OPTIONS = {
    "columns": "--column",
    "labels": "--label",
    "winner": "--winner",
    "split": "--split",
    "format": "--format",
    "on_error": "--on-error",
    "limit": "--limit",
    "allow_urls": "--allow-urls",
    "allow_any_path": "--allow-any-path",
    "on_too_long": "--on-too-long",
    "chat_template_kwargs": "--chat-template-kwarg",
    "layout": "--layout",
    "system": "--system",
    "criterion": "--criterion",
    "demonstrations": "--demonstrations",
    "readings": "--readings",
    "folds": "--folds",
    "batch_size": "--batch-size",
    "model": "--model",
    "data": "--data",
    "model_class": "--model-class",
    "dtype": "--dtype",
    "device": "--device",
    "force": "--force",
    "on_overlap": "--allow-overlap",
    "score_kind": "--score-kind",
}
"""Arguments of the library that a command has as an option."""
ON_THE_COMMAND_LINE = ("model", "data", "force")
"""What ``benchmark`` has options for; all else is in its configuration."""
LITERALS = {"True": "yes", "False": "no", "'drop'": "drop"}
_LITERAL = re.compile(r"\b(?:True|False)\b|'drop'")
_ARGUMENT = re.compile(r"\b(" + "|".join(OPTIONS) + r")=(?=[\"'{\[\w.])")


def as_options(text: str) -> str:
    """The text with each argument of the library that it names, ``name=value``, spelled as the command's option."""
    return _with_arguments(text, lambda name, source: _spelled(OPTIONS[name], source))


def as_fields(text: str) -> str:
    """The text with each argument of the library that it names, ``name=value``, spelled as the field of a configuration."""
    return _with_arguments(text, _field)


def _with_arguments(text: str, spelled: Callable[[str, str], str]) -> str:
    parts, end = [], 0
    for found in _ARGUMENT.finditer(text):
        if found.start() < end:
            continue
        source = _value_at(text, found.end())
        parts += [text[end : found.start()], spelled(found[1], source)]
        end = found.end() + len(source)
    whole = "".join([*parts, text[end:]])
    return _LITERAL.sub(lambda found: LITERALS[found[0]], whole) if parts else whole


def _value_at(text: str, start: int) -> str:
    """The Python expression that begins at ``start``: a literal as a whole, or a word."""
    if text[start] in "{[":
        depth = 0
        for index in range(start, len(text)):
            depth += {"{": 1, "[": 1, "}": -1, "]": -1}.get(text[index], 0)
            if not depth:
                return text[start : index + 1]
    word = re.compile(r"\"[^\"]*\"|'[^']*'|\.\.\.|[\w.]*\w").match(text, start)
    return word[0] if word else ""


def _field(name: str, source: str) -> str:
    if name in ON_THE_COMMAND_LINE:
        return _spelled(OPTIONS[name], source)
    if source in ("True", "False"):
        return f"{name}: {source.lower()}"
    plain = re.sub(r"(?<![\w])['\"]([\w./ -]+)['\"]", r"\1", source).replace("{..., ", "{")
    return f"{name}: {plain}"


def _spelled(option: str, source: str) -> str:
    try:
        value: Any = ast.literal_eval(source.replace("{..., ", "{"))
    except (SyntaxError, ValueError):
        value = source.removeprefix("torch.")
    if isinstance(value, dict):
        pairs = (
            (name, one) for name, given in value.items() for one in (given if isinstance(given, list) else [given])
        )
        return " ".join(f"{option} {shlex.quote(f'{_cell(name)}={_cell(one)}')}" for name, one in pairs)
    if value is True or option == OPTIONS["on_overlap"]:
        return option
    return f"{option} {_cell(value) if value is ... else shlex.quote(_cell(value))}"


def _cell(value: Any) -> str:
    if value is ...:
        return "..."
    return {True: "yes", False: "no"}[value] if isinstance(value, bool) else str(value)
