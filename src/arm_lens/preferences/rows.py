r"""Reading one row of named cells as one preference.

Three forms are recognised by the columns that have a value:

- a pair: ``prompt``, ``chosen``, ``rejected``;
- a pair with an implicit prompt: ``chosen`` and ``rejected`` are whole conversations, and the prompt is what they begin
  with in common. For messages it ends before the first one that differs, as in TRL; for transcripts in the style of
  HH-RLHF (``\n\nHuman: ...\n\nAssistant: ...``) it ends before the last ``\n\nAssistant:`` that both share;
- a labelled response: ``prompt``, ``completion`` (or ``response``), ``label``.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from itertools import takewhile
from typing import Any

from arm_lens.preferences.sources import is_missing, to_python
from arm_lens.preferences.types import (
    LabelledResponse,
    Message,
    Preference,
    PreferenceFieldError,
    PreferencePair,
    as_prompt,
    as_response,
    short_repr,
    text_of,
)

COLUMNS = ("prompt", "chosen", "rejected", "completion", "response", "label", "criterion", "id", "metadata")
"""The columns with a meaning; all others are metadata."""

PREFERENCE_FIELDS = (
    frozenset({"chosen", "rejected"}),
    frozenset({"prompt", "completion", "label"}),
    frozenset({"prompt", "response", "label"}),
)
"""Rows can be preferences only if at least one of these sets of columns is present."""

EXPECTED = "prompt, chosen, rejected (no prompt if both begin with it) or prompt, completion, label"

_TRANSCRIPT_ROLES = {"Human": "user", "Assistant": "assistant"}
_TURN = re.compile(r"\n\n(Human|Assistant):")
_ROLE_KEY = re.compile(r"""["']role["']\s*:""")
_LABELS = {"true": True, "yes": True, "1": True, "false": False, "no": False, "0": False}


def rename(cells: Mapping[str, Any], columns: Mapping[str, str]) -> dict[str, Any]:
    """The cells under our names for the columns.

    Args:
        cells: the cells by the user's column names.
        columns: from our names to the user's.
    """
    ours = {name: cells[column] for name, column in columns.items() if column in cells}
    # With {"prompt": "question"}, a user's column called "prompt" is not the prompt, but must not be lost.
    clashing = {column: f"{column} (column)" for column in cells if column in columns}
    used = set(columns.values())
    others = {clashing.get(column, column): cell for column, cell in cells.items() if column not in used}
    return {**others, **ours}


def read_row(cells: Mapping[str, Any], *, criterion: str, default_id: str, text_cells: bool) -> Preference:
    """The preference in a row.

    Args:
        cells: the cells by column, in our names.
        criterion: used if the row has none.
        default_id: used if the row has no id.
        text_cells: whether a cell may hold a conversation as JSON.

    Raises:
        PreferenceFieldError: if the row is not a preference; it names the first invalid field.
    """
    filled = {column: to_python(cell) for column, cell in cells.items() if not is_missing(cell)}
    is_pair = _is_pair(filled)
    used = {"prompt", "chosen", "rejected"} if is_pair else {"prompt", "completion", "response", "label"}
    rest = {
        "criterion": _criterion(filled.get("criterion", criterion)),
        "id": _identifier(filled.get("id", default_id)),
        "metadata": _metadata({column: cell for column, cell in filled.items() if column not in used}),
    }
    return _pair(filled, rest, text_cells) if is_pair else _labelled_response(filled, rest, text_cells)


def conversation_in(text: str) -> list[Any] | None:
    """The messages, if the text is a JSON list of them; None if it is ordinary text.

    Raises:
        json.JSONDecodeError: if it looks like such a list but is not valid JSON, such as the repr of a Python list.
    """
    if not (text.startswith("[{") and _ROLE_KEY.search(text)):
        return None
    messages = json.loads(text)
    return messages if isinstance(messages, list) else None


def _is_pair(filled: Mapping[str, Any]) -> bool:
    """Whether the row is a pair rather than a labelled response; a row that could be either is refused."""
    pair = {"chosen", "rejected"} & set(filled)
    single = {"completion", "response"} & set(filled)
    is_single = bool(single) and "label" in filled
    if len(pair) == 2 and is_single:
        raise PreferenceFieldError("", "could be a pair (chosen, rejected) as well as a labelled response (label)")
    if len(pair) == 2 or (pair and not is_single):
        return True
    if single or "label" in filled:
        return False
    found = ", ".join(filled) or "no column"
    raise PreferenceFieldError("", f"is not a preference: it has values for {found}; expected {EXPECTED}")


def _required(filled: Mapping[str, Any], field: str, text_cells: bool) -> Any:
    """The value of a prompt or response column."""
    if field not in filled:
        raise PreferenceFieldError(field, "is missing")
    value = filled[field]
    if isinstance(value, str) and text_cells:
        try:
            value = conversation_in(value) or value
        except json.JSONDecodeError as error:
            raise PreferenceFieldError(field, f"looks like a list of messages, but is not JSON: {error}") from error
    if isinstance(value, list):
        # In Arrow, every message has the keys of all messages; those it lacks are None.
        value = [_without_nones(message) if isinstance(message, dict) else message for message in value]
    return value


def _without_nones(message: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in message.items() if value is not None or key in ("role", "content")}


def _labelled_response(filled: Mapping[str, Any], rest: Mapping[str, Any], text_cells: bool) -> LabelledResponse:
    if {"completion", "response"} <= set(filled):
        raise PreferenceFieldError("response", "is given twice, as completion and as response")
    name = "response" if "response" in filled else "completion"
    prompt = as_prompt("prompt", _required(filled, "prompt", text_cells))
    return LabelledResponse(prompt, as_response(name, _required(filled, name, text_cells)), _label(filled), **rest)


def _label(filled: Mapping[str, Any]) -> bool:
    if "label" not in filled:
        raise PreferenceFieldError("label", "is missing")
    value = filled["label"]
    if isinstance(value, str):
        value = _LABELS.get(value.strip().lower(), value)
    if isinstance(value, (bool, int, float)) and value in (0, 1):  # with missing values, pandas makes them 0.0 and 1.0
        return bool(value)
    raise PreferenceFieldError("label", f"is {short_repr(value)}, not one of true, false, yes, no, 1, 0")


def _pair(filled: Mapping[str, Any], rest: Mapping[str, Any], text_cells: bool) -> PreferencePair:
    chosen, rejected = (_required(filled, name, text_cells) for name in ("chosen", "rejected"))
    given = _required(filled, "prompt", text_cells) if "prompt" in filled else None
    if given is not None and not (_begins_conversation(chosen) and _begins_conversation(rejected)):
        prompt = given
    elif isinstance(chosen, list) and isinstance(rejected, list):
        prompt, chosen, rejected = _split_messages(chosen, rejected)
    elif isinstance(chosen, str) and isinstance(rejected, str):
        prompt, chosen, rejected = _split_transcripts(chosen, rejected)
    else:
        raise PreferenceFieldError("prompt", "is missing, and chosen and rejected are not both texts or both messages")
    pair = PreferencePair(
        as_prompt("prompt", prompt), as_response("chosen", chosen), as_response("rejected", rejected), **rest
    )
    # If the conversations include the prompt, a prompt column must repeat it, or its last message.
    if given is not None and given not in (prompt, text_of(pair.prompt), text_of(pair.prompt[-1:])):
        raise PreferenceFieldError("prompt", "differs from the conversation that chosen and rejected begin with")
    return pair


def _begins_conversation(response: object) -> bool:
    """Whether a response is a conversation that begins with the prompt, as in UltraFeedback (which also has a prompt)."""
    first = response[0] if isinstance(response, list) and response else None
    return isinstance(first, dict) and first.get("role") not in (None, "assistant")


def _split_messages(chosen: list[Any], rejected: list[Any]) -> tuple[Any, Any, Any]:
    """The shared first messages, and the rest of each conversation."""
    if chosen == rejected:
        raise PreferenceFieldError("rejected", "is the same conversation as chosen")
    end = _n_shared(chosen, rejected)
    if not end:
        raise PreferenceFieldError("prompt", "is missing, and chosen and rejected share no first message")
    return chosen[:end], chosen[end:], rejected[end:]


def _split_transcripts(chosen: str, rejected: str) -> tuple[Any, Any, Any]:
    """The shared turns before the last ``Assistant:`` that both share, and the rest of each transcript."""
    chosen, rejected = ("\n\n" + text.lstrip() for text in (chosen, rejected))
    shared = chosen[: _n_shared(chosen, rejected)]
    end = shared.rfind("\n\nAssistant:")
    if end <= 0 or not shared.startswith("\n\nHuman:"):
        reason = (
            "is missing, and chosen and rejected are not transcripts (Human: ... Assistant: ...) that begin with it"
        )
        raise PreferenceFieldError("prompt", reason)
    return _turns(shared[:end]), _turns(chosen[end:]), _turns(rejected[end:])


def _n_shared(first: Sequence[Any], second: Sequence[Any]) -> int:
    """The length of the longest common prefix."""
    return sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], zip(first, second, strict=False)))


def _turns(transcript: str) -> list[Message]:
    """The messages of a transcript; consecutive turns of one speaker are not merged."""
    _, *parts = _TURN.split(transcript)
    return [
        Message(role=_TRANSCRIPT_ROLES[speaker], content=content.strip())
        for speaker, content in zip(parts[::2], parts[1::2], strict=True)
    ]


def _criterion(value: Any) -> str:
    if not isinstance(value, str):
        raise PreferenceFieldError("criterion", f"is {short_repr(value)}, not text")
    return value


def _identifier(value: Any) -> str:
    if isinstance(value, float) and value.is_integer():  # pandas turns integers with missing values into floats
        value = int(value)
    if not isinstance(value, (str, int, float)):
        raise PreferenceFieldError("id", f"is {short_repr(value)}, neither text nor a number")
    return str(value)


def _metadata(others: dict[str, Any]) -> dict[str, Any]:
    """The contents of a ``metadata`` column, and all columns without a meaning of their own."""
    columns = {column: cell for column, cell in others.items() if column not in ("criterion", "id", "metadata")}
    metadata = others.get("metadata", {})
    if isinstance(metadata, str) and metadata.startswith("{"):
        try:
            metadata = json.loads(metadata)
        except json.JSONDecodeError as error:
            raise PreferenceFieldError("metadata", f"looks like a JSON object, but is not: {error}") from error
    if not isinstance(metadata, dict):
        metadata = {"metadata": metadata}
    twice = columns.keys() & metadata.keys()
    if twice:
        raise PreferenceFieldError("metadata", f"has {min(twice)!r}, which is also a column")
    return {**metadata, **columns}
