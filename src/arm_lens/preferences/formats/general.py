r"""TRL's format of preference data, which is the general one, and HH-RLHF's, a special case of it.

Four forms are recognised by the columns that have a value:

- a pair: ``prompt``, ``chosen``, ``rejected``;
- a pair with an implicit prompt: ``chosen`` and ``rejected`` are whole conversations, and the prompt is what they begin
  with in common. For messages it ends before the first one that differs, as in TRL; for transcripts in the style of
  HH-RLHF (``\n\nHuman: ...\n\nAssistant: ...``) it ends before the last ``\n\nAssistant:`` that both share;
- a labelled response: ``prompt``, ``completion`` (or ``response``, or ``text``), ``label``;
- two responses and which of them won: ``prompt``, ``response_a``, ``response_b``, ``winner``.

The last two need no prompt: if no row has one, the prompt is empty. What labels and winners mean is declared
(`arm_lens.preferences.verdicts`).
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from itertools import takewhile
from typing import Any

from arm_lens.preferences.files import JsonError, parse_json
from arm_lens.preferences.formats.registry import Format
from arm_lens.preferences.formats.rows import Part, Reading, Record
from arm_lens.preferences.messages import Message, PreferenceFieldError, as_prompt, short_repr, text_of
from arm_lens.preferences.types import Preference, TiedPair
from arm_lens.preferences.verdicts import (
    labels_option,
    listed,
    looks_like_winner,
    response_columns,
    value_text,
    winner_option,
)

GENERAL = "trl"
"""The only format whose columns can be renamed."""

COLUMNS = (
    *("prompt", "chosen", "rejected", "response_a", "response_b", "winner"),
    *("completion", "response", "text", "label", "criterion", "id", "metadata"),
)
"""The columns with a meaning; all others are metadata."""

EXPECTED = (
    "prompt, chosen, rejected (no prompt if both begin with it), prompt, response_a, response_b, winner "
    "or prompt, completion, label (no prompt for texts that are classified: text, label)"
)

_TRANSCRIPT_ROLES = {"Human": "user", "Assistant": "assistant"}
_TURN = re.compile(r"\n\n(Human|Assistant):")
_COMPARED = frozenset({"response_a", "response_b"})
_PAIR = frozenset({"chosen", "rejected"})
_PROMPTS = ("prompt", "question", "instruction", "query", "input", "context", "post")
_BETTER_AND_WORSE = (
    *(("better", "worse"), ("good", "bad"), ("preferred", "dispreferred"), ("positive", "negative"), ("win", "lose")),
    *(("winner", "loser"), ("accepted", "rejected"), ("correct", "incorrect"), ("right", "wrong"), ("best", "worst")),
    *(("chosen_response", "rejected_response"), ("correct_response", "hacked_response"), ("gold", "hacked")),
)
_TEXTS = (
    "completion",
    "response",
    "text",
    "answer",
    "output",
    "tweet",
    "sentence",
    "comment",
    "review",
    "content",
    "message",
)


def _read_trl(record: Record) -> list[Preference | TiedPair]:
    filled = record.filled()
    if not isinstance(filled.get("criterion", ""), str):
        raise PreferenceFieldError("criterion", f"is {short_repr(filled['criterion'])}, not text")
    return [_READ[_form_of(filled)](record, filled)]


def _read_hh_rlhf(record: Record) -> list[Preference | TiedPair]:
    """A pair of transcripts that share all but the last answers."""
    chosen, rejected = (_content(record, name) for name in ("chosen", "rejected"))
    for name, text in (("chosen", chosen), ("rejected", rejected)):
        if not isinstance(text, str):
            raise PreferenceFieldError(name, "is not a transcript")
    if "prompt" in record.filled():
        raise PreferenceFieldError("prompt", "is given although the transcripts include the prompt")
    return [record.preference(_split(chosen, rejected), id=record.text("id"), used=("id",))]


def _form_of(filled: Mapping[str, Any]) -> str:
    """Which form a row has; a row that could have several is refused."""
    pair, compared, single = _PAIR & filled.keys(), _COMPARED & filled.keys(), _single(filled)
    is_single = bool(single) and "label" in filled
    complete = {"pair": len(pair) == 2, "compared": len(compared) == 2, "response": is_single}
    forms = [form for form, is_complete in complete.items() if is_complete]
    if len(forms) > 1:
        described = {
            "pair": "a pair (chosen, rejected)",
            "compared": "two responses to choose from (response_a, response_b)",
            "response": "a labelled response (label)",
        }
        raise PreferenceFieldError("", f"could be {described[forms[0]]} as well as {described[forms[1]]}")
    if not (pair or compared or single or "label" in filled):
        found = ", ".join(filled) or "no column"
        raise PreferenceFieldError("", f"is not a preference: it has values for {found}; expected {EXPECTED}"[:1000])
    return forms[0] if forms else "pair" if pair else "compared" if compared else "response"


def _single(filled: Collection[str]) -> tuple[str, ...]:
    """The columns with the response that is labelled; ``text`` is one only if there is no other."""
    named = tuple(name for name in ("completion", "response") if name in filled)
    return named or (("text",) if "text" in filled else ())


def _read_pair(record: Record, filled: Mapping[str, Any]) -> Preference | TiedPair:
    chosen, rejected = (_content(record, name) for name in ("chosen", "rejected"))
    given = _content(record, "prompt") if "prompt" in filled else None
    are_whole = given is None or (_begins_conversation(chosen) and _begins_conversation(rejected))
    parts = _split(chosen, rejected) if are_whole else _parts(given, chosen, rejected)
    # If the conversations include the prompt, a prompt column must repeat it, or its last message.
    if given is not None and are_whole:
        prompt = as_prompt("prompt", parts["prompt"].value)
        if given not in (parts["prompt"].value, text_of(prompt), text_of(prompt[-1:])):
            raise PreferenceFieldError("prompt", "differs from the conversation that chosen and rejected begin with")
    used = list(parts)
    if "winner" in filled:
        parts, used = _decided(record, parts, "chosen", "rejected"), [*used, "winner"]
    return record.make(parts, _metadata(record, filled, used), id=record.text("id"))


def _read_compared(record: Record, filled: Mapping[str, Any]) -> Preference | TiedPair:
    parts = {name: Part(name, _content(record, name)) for name in ("response_a", "response_b")}
    parts["prompt"] = Part("prompt", _prompt(record))
    if "winner" not in filled:
        raise PreferenceFieldError("winner", "is missing")
    metadata = _metadata(record, filled, [*parts, "winner"])
    return record.make(_decided(record, parts, "response_a", "response_b"), metadata, id=record.text("id"))


def _decided(record: Record, parts: Mapping[str, Part], first: str, second: str) -> dict[str, Part]:
    """The prompt and the two responses, by the names that the winner gives them."""
    reading = record.reading
    names = (reading.columns.get(first, first), reading.columns.get(second, second))
    winner = reading.verdicts.winner_of("winner", record.cells["winner"], names)
    decided: Any = record.compared(parts[first], parts[second], winner, "the winner is a tie")
    return {"prompt": parts["prompt"], **decided}


def _read_response(record: Record, filled: Mapping[str, Any]) -> Preference | TiedPair:
    names = _single(filled)
    if len(names) > 1:
        raise PreferenceFieldError("response", "is given twice, as completion and as response")
    expected = (name for name in ("completion", "response", "text") if name in record.cells)
    name = names[0] if names else next(expected, "completion")
    response = Part(name, _content(record, name))
    parts = {"prompt": Part("prompt", _prompt(record)), "response": response}
    if "label" not in filled:
        raise PreferenceFieldError("label", "is missing")
    label = record.reading.verdicts.label("label", filled["label"])
    return record.make(parts, _metadata(record, filled, ("prompt", name, "label")), label=label, id=record.text("id"))


_READ: dict[str, Callable[[Record, Mapping[str, Any]], Preference | TiedPair]] = {
    "pair": _read_pair,
    "compared": _read_compared,
    "response": _read_response,
}


def _content(record: Record, field: str) -> Any:
    """A prompt or response: text, or messages."""
    if field not in record.filled():
        raise PreferenceFieldError(field, "is missing")
    return record.part(field).value


def _prompt(record: Record) -> Any:
    """The prompt; empty if no row of the source has one."""
    return _content(record, "prompt") if record.reading.has_prompts else ""


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


def _metadata(record: Record, filled: Mapping[str, Any], used: Collection[str]) -> dict[str, Any]:
    """The contents of a ``metadata`` column, and all columns without a meaning of their own."""
    columns = {column: cell for column, cell in filled.items() if column not in {*used, "criterion", "id", "metadata"}}
    metadata = filled.get("metadata", {})
    if isinstance(metadata, str) and metadata.startswith("{"):
        try:
            metadata = parse_json(metadata.encode())
        except (JsonError, UnicodeEncodeError) as error:
            raise PreferenceFieldError("metadata", f"looks like a JSON object, but is not: {error}") from error
    if not isinstance(metadata, dict):
        metadata = {record.reading.columns.get("metadata", "metadata"): metadata}
    twice = columns.keys() & metadata.keys()
    if twice:
        raise PreferenceFieldError("metadata", f"has {min(twice)!r}, which is also a column")
    return {**metadata, **columns}


# ------------------------------------------------------------------------------------ what has no meaning, and what to pass


def check_verdicts(rows: Sequence[Mapping[str, Any]], reading: Reading) -> str:
    """What is wrong with the labels and winners of a table as a whole, and the option that mends it; ``""`` if nothing is.

    Args:
        rows: the cells that have a value, by our names.
        reading: how they are read.
    """
    verdicts, columns = reading.verdicts, reading.columns
    for ours, other in (("response_a", "response_b"), ("response_b", "response_a")):
        expected = response_columns((columns.get(ours, ours), columns.get(other, other)))
        if ours == "response_a" and expected and expected != (columns.get(ours, ours), columns.get(other, other)):
            return (
                f"has {expected[0]} before {expected[1]}, but columns exchanges them: map response_a to {expected[0]}"
            )
    names = {
        form: tuple(columns.get(name, name) for name in form_columns)
        for form, form_columns in (("compared", ("response_a", "response_b")), ("pair", ("chosen", "rejected")))
    }
    counts: Counter[str] = Counter()
    found: dict[str, Counter[str]] = {"label": Counter(), "winner": Counter()}
    unknown: Counter[str] = Counter()
    others: dict[str, Counter[str]] = {}
    for row in rows:
        form = _complete_form(row)
        counts[form] += 1
        if form == "response" and not isinstance(verdicts.labels, str):
            found["label"][value_text(row["label"])] += 1
            unknown["label"] += verdicts.labels_known(row["label"]) is None
        if form in names and "winner" in row:
            first, second = names[form]
            found["winner"][value_text(row["winner"])] += 1
            unknown["winner"] += verdicts.winner_known(row["winner"], (first, second)) is None
        if form in names and "winner" not in row and not _single(row):
            for column, cell in row.items():
                if column not in COLUMNS or column == "label":
                    others.setdefault(column, Counter())[value_text(cell) if _is_plain(cell) else ""] += 1
    if verdicts.labels is not None and rows and not counts["response"]:
        return f"has no labels, so labels={verdicts.labels!r:.200} declares nothing"
    if verdicts.winner is not None and not any("winner" in row for row in rows):
        hint = _winner_column(others)
        return "has no column winner" + (
            f"; if {hint} says which response won, pass columns={{'winner': {hint!r}}}" if hint else ""
        )
    declared = {"label": verdicts.labels, "winner": verdicts.winner}
    for field, values in found.items():
        # A few odd labels are problems of their rows.
        is_general = field == "winner" or declared[field] is not None or 10 * unknown[field] > max(10, values.total())
        if unknown[field] and is_general:
            return _undeclared(columns.get(field, field), field, values, declared[field])
    for column, values in others.items():
        if looks_like_winner(column, values):
            first, second = names["pair"] if counts["pair"] else names["compared"]
            return (
                f"has a column {column!r} that looks as if it said which response won; its values are {listed(values)}. Pass "
                f"columns={{..., 'winner': {column!r}}}, {winner_option(values)}, where A is {first} and B is {second}; or "
                f"columns={{..., 'metadata': {column!r}}} if it says something else"
            )
    return ""


def _undeclared(column: str, field: str, values: Counter[str], declared: object) -> str:
    option = labels_option(values) if field == "label" else winner_option(values)
    meanings = "True, False or 'drop'" if field == "label" else "'A', 'B', 'tie' or 'drop'"
    is_new = (
        "that nothing declares"
        if declared is None
        else f"that {'labels' if field == 'label' else 'winner'} does not map"
    )
    threshold = (
        ", or for ratings a threshold such as labels='>= 4'" if field == "label" and _are_numbers(values) else ""
    )
    values_found = f"has values in the column {column!r} {is_new}: {listed(values)}"
    return f"{values_found}. Pass {option} with {meanings} for each{threshold}"


def _are_numbers(values: Iterable[str]) -> bool:
    return all(re.fullmatch(r"-?\d+(\.\d+)?", value) for value in values)


def _is_plain(cell: object) -> bool:
    return isinstance(cell, (str, int, float))


def _complete_form(row: Mapping[str, Any]) -> str:
    """The form of a row that has all its columns; ``""`` otherwise."""
    if "label" in row and _single(row) and not row.keys() >= _PAIR:
        return "response"
    if row.keys() >= _PAIR:
        return "pair"
    return "compared" if row.keys() >= _COMPARED else ""


def _winner_column(others: Mapping[str, Counter[str]]) -> str:
    return next((column for column, values in others.items() if looks_like_winner(column, values)), "")


def proposal(columns: Sequence[str], values: Callable[[str], Counter[str]], named: Mapping[str, str]) -> str:
    """What columns that fit no format look like, and what to pass; ``""`` if they look like nothing known.

    Args:
        columns: the names of the columns.
        values: the values of a column, counted.
        named: from our names to the source's, for columns that the caller renamed.
    """
    by_lower = {column.strip().lower(): column for column in reversed(columns)}
    prompt = named.get("prompt") or next((by_lower[name] for name in _PROMPTS if name in by_lower), "")
    renamed = {"prompt": prompt} if prompt and prompt != "prompt" else {}
    own = tuple(named.get(name, name) for name in ("response_a", "response_b"))
    responses = (own[0], own[1]) if set(own) <= set(columns) else response_columns(columns)
    if responses:
        others = {column: values(column) for column in columns if column not in (*responses, prompt)}
        winner = _winner_column(others)
        renamed |= {"response_a": responses[0], "response_b": responses[1]} | ({"winner": winner} if winner else {})
        seen = f", and {winner} as if it said which won: {listed(others[winner])}" if winner else ""
        means = f", {winner_option(others[winner])}" if winner else ", and map winner to the column that says which won"
        return f"; {responses[0]} and {responses[1]} look like two responses{seen}. Pass columns={renamed}{means}"
    better = next((pair for pair in _BETTER_AND_WORSE if set(pair) <= by_lower.keys()), None)
    if better:
        renamed |= {"chosen": by_lower[better[0]], "rejected": by_lower[better[1]]}
        names = f"{renamed['chosen']} and {renamed['rejected']}"
        return f"; {names} look like a better and a worse response. Pass columns={renamed}"
    response = next((by_lower[name] for name in _TEXTS if name in by_lower and by_lower[name] != prompt), "")
    label = next(
        (column for column in columns if column not in (response, prompt) and 2 <= len(values(column)) <= 12), ""
    )
    if response and label:
        renamed |= {} if response in ("completion", "response", "text") else {"response": response}
        renamed |= {} if label == "label" else {"label": label}
        means = labels_option(values(label))
        return f"; {response} and {label} look like texts with a label: pass columns={renamed}, {means}"
    return ""


FORMATS = (
    Format(
        name=GENERAL,
        title="TRL and Hugging Face: prompt, chosen, rejected; prompt, response_a, response_b, winner; or text, label",
        fields=(
            frozenset({"chosen", "rejected"}),
            frozenset({"prompt", "completion", "label"}),
            frozenset({"prompt", "response", "label"}),
            frozenset({"response_a", "response_b", "winner"}),
            frozenset({"completion", "label"}),
            frozenset({"response", "label"}),
            frozenset({"text", "label"}),
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
