r"""TRL's format of preference data, which is the general one, and HH-RLHF's, a special case of it.

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
from collections.abc import Collection, Mapping, Sequence
from itertools import takewhile
from typing import Any

from arm_lens.preferences.formats.registry import Format
from arm_lens.preferences.formats.rows import Part, Record
from arm_lens.preferences.messages import Message, PreferenceFieldError, short_repr, text_of
from arm_lens.preferences.types import Preference

GENERAL = "trl"
"""The only format whose columns can be renamed."""

COLUMNS = ("prompt", "chosen", "rejected", "completion", "response", "label", "criterion", "id", "metadata")
"""The columns with a meaning; all others are metadata."""

EXPECTED = "prompt, chosen, rejected (no prompt if both begin with it) or prompt, completion, label"

_TRANSCRIPT_ROLES = {"Human": "user", "Assistant": "assistant"}
_TURN = re.compile(r"\n\n(Human|Assistant):")
_ROLE_KEY = re.compile(r"""["']role["']\s*:""")
_LABELS = {"true": True, "yes": True, "1": True, "false": False, "no": False, "0": False}


def looks_like_messages(text: str) -> bool:
    """Whether a text is read as a JSON list of messages; it need not be valid, such as the repr of a Python list."""
    return text.startswith("[{") and bool(_ROLE_KEY.search(text))


def _read_trl(record: Record) -> list[Preference]:
    filled = record.filled()
    if not isinstance(filled.get("criterion", ""), str):
        raise PreferenceFieldError("criterion", f"is {short_repr(filled['criterion'])}, not text")
    return [_read_pair(record, filled) if _is_pair(filled) else _read_response(record, filled)]


def _read_hh_rlhf(record: Record) -> list[Preference]:
    """A pair of transcripts that share all but the last answers."""
    chosen, rejected = (_content(record, name) for name in ("chosen", "rejected"))
    for name, text in (("chosen", chosen), ("rejected", rejected)):
        if not isinstance(text, str):
            raise PreferenceFieldError(name, "is not a transcript")
    if "prompt" in record.filled():
        raise PreferenceFieldError("prompt", "is given although the transcripts include the prompt")
    return [record.preference(_split(chosen, rejected), id=record.text("id"), used=("id",))]


def _is_pair(filled: Mapping[str, Any]) -> bool:
    """Whether the row is a pair rather than a labelled response; a row that could be either is refused."""
    pair, single = {"chosen", "rejected"} & filled.keys(), {"completion", "response"} & filled.keys()
    is_single = bool(single) and "label" in filled
    if len(pair) == 2 and is_single:
        raise PreferenceFieldError("", "could be a pair (chosen, rejected) as well as a labelled response (label)")
    if not (pair or single or "label" in filled):
        found = ", ".join(filled) or "no column"
        raise PreferenceFieldError("", f"is not a preference: it has values for {found}; expected {EXPECTED}")
    return bool(pair) and not is_single


def _read_pair(record: Record, filled: Mapping[str, Any]) -> Preference:
    chosen, rejected = (_content(record, name) for name in ("chosen", "rejected"))
    given = _content(record, "prompt") if "prompt" in filled else None
    are_whole = given is None or (_begins_conversation(chosen) and _begins_conversation(rejected))
    parts = _split(chosen, rejected) if are_whole else _parts(given, chosen, rejected)
    pair = record.make(parts, _metadata(filled, parts), id=record.text("id"))
    # If the conversations include the prompt, a prompt column must repeat it, or its last message.
    repeated = (parts["prompt"].value, text_of(pair.prompt), text_of(pair.prompt[-1:]))
    if given is not None and given not in repeated:
        raise PreferenceFieldError("prompt", "differs from the conversation that chosen and rejected begin with")
    return pair


def _read_response(record: Record, filled: Mapping[str, Any]) -> Preference:
    if {"completion", "response"} <= set(filled):
        raise PreferenceFieldError("response", "is given twice, as completion and as response")
    name = "response" if "response" in filled else "completion"
    parts = {"prompt": Part("prompt", _content(record, "prompt")), "response": Part(name, _content(record, name))}
    metadata = _metadata(filled, ("prompt", name, "label"))
    return record.make(parts, metadata, label=_label(filled), id=record.text("id"))


def _content(record: Record, field: str) -> Any:
    """A prompt or response: text, or messages, which may be JSON in a cell of text."""
    if field not in record.filled():
        raise PreferenceFieldError(field, "is missing")
    value = record.cells[field]
    if isinstance(value, str) and record.table.text_cells and looks_like_messages(value):
        try:
            value = json.loads(value)
        except json.JSONDecodeError as error:
            raise PreferenceFieldError(field, f"looks like a list of messages, but is not JSON: {error}") from error
    if isinstance(value, list):
        # In Arrow, every message has the keys of all messages; those it lacks are None.
        value = [
            {key: item for key, item in message.items() if item is not None or key in ("role", "content")}
            if isinstance(message, dict)
            else message
            for message in value
        ]
    return value


def _label(filled: Mapping[str, Any]) -> bool:
    if "label" not in filled:
        raise PreferenceFieldError("label", "is missing")
    value = filled["label"]
    if isinstance(value, str):
        value = _LABELS.get(value.strip().lower(), value)
    if isinstance(value, (bool, int, float)) and value in (0, 1):  # with missing values, pandas makes them 0.0 and 1.0
        return bool(value)
    raise PreferenceFieldError("label", f"is {short_repr(value)}, not one of true, false, yes, no, 1, 0")


def _parts(prompt: Any, chosen: Any, rejected: Any) -> dict[str, Part]:
    return {"prompt": Part("prompt", prompt), "chosen": Part("chosen", chosen), "rejected": Part("rejected", rejected)}


def _begins_conversation(response: object) -> bool:
    """Whether a response is a conversation that begins with the prompt, as in UltraFeedback (which also has a prompt)."""
    first = response[0] if isinstance(response, list) and response else None
    return isinstance(first, dict) and first.get("role") not in (None, "assistant")


def _split(chosen: Any, rejected: Any) -> dict[str, Part]:
    """The prompt that two conversations begin with, and the rest of each conversation."""
    if isinstance(chosen, list) and isinstance(rejected, list):
        if chosen == rejected:
            raise PreferenceFieldError("rejected", "is the same conversation as chosen")
        end = _n_shared(chosen, rejected)
        if not end:
            raise PreferenceFieldError("prompt", "is missing, and chosen and rejected share no first message")
        return _parts(chosen[:end], chosen[end:], rejected[end:])
    if not (isinstance(chosen, str) and isinstance(rejected, str)):
        raise PreferenceFieldError("prompt", "is missing, and chosen and rejected are not both texts or both messages")
    chosen, rejected = ("\n\n" + text.lstrip() for text in (chosen, rejected))
    shared = chosen[: _n_shared(chosen, rejected)]
    end = shared.rfind("\n\nAssistant:")
    if end <= 0 or not shared.startswith("\n\nHuman:"):
        reason = "are not transcripts (Human: ... Assistant: ...) that begin with it"
        raise PreferenceFieldError("prompt", f"is missing, and chosen and rejected {reason}")
    return _parts(_turns(shared[:end]), _turns(chosen[end:]), _turns(rejected[end:]))


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


def _metadata(filled: Mapping[str, Any], used: Collection[str]) -> dict[str, Any]:
    """The contents of a ``metadata`` column, and all columns without a meaning of their own."""
    columns = {column: cell for column, cell in filled.items() if column not in {*used, "criterion", "id", "metadata"}}
    metadata = filled.get("metadata", {})
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


FORMATS = (
    Format(
        name=GENERAL,
        title="TRL and Hugging Face: prompt, chosen, rejected; chosen, rejected; or prompt, completion, label",
        fields=(
            frozenset({"chosen", "rejected"}),
            frozenset({"prompt", "completion", "label"}),
            frozenset({"prompt", "response", "label"}),
        ),
        read=_read_trl,
    ),
    Format(
        name="hh-rlhf",
        title="HH-RLHF (Bai et al. 2022, arXiv 2204.05862): transcripts; unless named, read as TRL's implicit prompts",
        fields=(frozenset({"chosen", "rejected"}),),
        by_name_only=True,
        read=_read_hh_rlhf,
    ),
)
