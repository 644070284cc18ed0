"""Columns and values of the general format that nothing declares, and the options that would declare them.

A column that says which response won turns pairs round if it is read as metadata, and a prompt that is read as metadata
leaves its responses to be judged without it. Either is an error of the table as a whole, with the option to pass.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

from arm_lens.preferences.formats.general import COLUMNS, COMPARED, GENERAL, PAIR, RESPONSES
from arm_lens.preferences.formats.registry import Format
from arm_lens.preferences.formats.rows import Reading, looks_like_messages
from arm_lens.preferences.verdicts import (
    Verdicts,
    is_marked,
    labels_option,
    listed,
    response_columns,
    says_tie,
    value_text,
    winner_likeness,
    winner_option,
)

_PROMPTS = (
    *("prompt", "question", "instruction", "query", "input", "context", "post"),
    *("prompts", "instructions", "user_input", "user_prompt", "history"),
)
_BETTER_AND_WORSE = (
    *(("better", "worse"), ("good", "bad"), ("preferred", "dispreferred"), ("positive", "negative"), ("win", "lose")),
    *(("winner", "loser"), ("accepted", "rejected"), ("correct", "incorrect"), ("right", "wrong"), ("best", "worst")),
    *(("chosen_response", "rejected_response"), ("correct_response", "hacked_response"), ("gold", "hacked")),
)
_TEXTS = (
    *("completion", "response", "text", "answer", "output", "tweet", "sentence", "comment", "review"),
    *("content", "message"),
)
_IMAGES = (
    *("image", "images", "img", "picture", "photo", "image_path", "image_paths", "image_file", "image_name"),
    *("image_url", "image_urls", "image_bytes", "jpg", "png"),
)
Counts = dict[str, Counter[str]]
"""The values of columns as text, counted."""


def check_declared(rows: Sequence[Mapping[str, Any]], reading: Reading) -> str:
    """What is wrong with a table's columns, labels and winners as a whole, and the option that mends it; or ``""``.

    Args:
        rows: the cells that have a value, by our names.
        reading: how they are read.
    """
    return next(filter(None, _problems(rows, reading)), "")


def _problems(rows: Sequence[Mapping[str, Any]], reading: Reading) -> Iterator[str]:
    yield twice_but_for_case(rows, reading)
    verdicts, columns = reading.verdicts, reading.columns
    names = {
        "compared": (columns.get("response_a", "response_a"), columns.get("response_b", "response_b")),
        "pair": (columns.get("chosen", "chosen"), columns.get("rejected", "rejected")),
    }
    forms: Counter[str] = Counter()
    found: Counts = {"label": Counter(), "winner": Counter()}
    unknown: Counts = {"label": Counter(), "winner": Counter()}
    others: Counts = {}
    ties: Counts = {}
    for row in rows:
        form = _complete_form(row)
        forms[form] += 1
        if form == "response" and not isinstance(verdicts.labels, str):
            value = value_text(row["label"])
            found["label"][value] += 1
            unknown["label"][value] += verdicts.labels_known(row["label"]) is None
        if form not in names:
            continue
        if "winner" in row:
            value = value_text(row["winner"])
            found["winner"][value] += 1
            unknown["winner"][value] += verdicts.winner_known(row["winner"], names[form]) is None
        for column, cell in row.items():
            if column not in COLUMNS or (column == "label" and row.keys().isdisjoint(RESPONSES)):
                counts = ties if "winner" in row else others
                counts.setdefault(column, Counter())[value_text(cell) if _is_plain(cell) else ""] += 1
    for form in names:
        if form == "compared" or found["winner"]:
            yield _exchanged(names[form], form)
    if verdicts.labels is not None and rows and not forms["response"]:
        yield f"has no labels, so labels={verdicts.labels!r:.200} declares nothing"
    if verdicts.winner is not None and not any("winner" in row for row in rows):
        column = _winner_column(others)
        hint = f"; if {column} says which response won, pass columns={{'winner': {column!r}}}" if column else ""
        yield f"has no column winner{hint}"
    declared = {"label": verdicts.labels, "winner": verdicts.winner}
    for field, values in found.items():
        # A few odd labels are problems of their rows.
        missing = +unknown[field]
        is_general = field == "winner" or declared[field] is not None or 10 * missing.total() > max(10, values.total())
        if missing and is_general:
            yield _undeclared(columns.get(field, field), field, values, missing, declared[field])
    yield _unread_classes(reading) if forms["response"] else ""
    yield _unread_winner(others, rows, reading, names["pair"] if forms["pair"] else names["compared"])
    for column, values in ties.items():
        if says_tie(column) and any(is_marked(value) for value in values):
            yield (
                f"has a column {column!r} that looks as if it said which rows are ties; its values are {listed(values)}. "
                f"Let the column of the winner say so, or pass {_aside(column, reading)} if it says something else"
            )
    yield images_elsewhere(rows, reading)
    if not reading.has_prompts and any(map(_lacks_prompt, rows)):
        yield prompt_elsewhere(rows, reading)


def _lacks_prompt(row: Mapping[str, Any]) -> bool:
    """Whether a row of a complete form has no prompt unless a column has it: its responses are not whole conversations."""
    form, chosen = _complete_form(row), row.get("chosen")
    begins = isinstance(chosen, str) and not (looks_like_messages(chosen) or chosen.lstrip().startswith("Human:"))
    return form in ("compared", "response") or (form == "pair" and begins)


def _unread_classes(reading: Reading) -> str:
    """What to declare if the label is a class, of which some are neither yes nor no, whether rows have them or not."""
    names, verdicts = reading.label_names, reading.verdicts
    if verdicts.labels is not None or all(verdicts.labels_known(name) is not None for name in names):
        return ""
    column = reading.columns.get("label", "label")
    return (
        f"has the classes {', '.join(map(repr, names))} in the column {column!r}, and nothing declares what they mean. Pass "
        f"{labels_option(names)} with True, False or 'drop' for each"
    )


def check_recognised(rows: Iterable[Mapping[str, Any]], format: Format) -> str:
    """Which column says that data is not of the benchmark that its other columns are of, and what to pass; or ``""``."""
    own = {*format.distinguishing, *(field for fields in format.fields for field in fields)}
    others: Counts = {}
    texts: set[str] = set()
    for row in rows:
        texts |= {column for column, cell in row.items() if isinstance(cell, (str, list))}
        for column, cell in row.items():
            if column not in own:
                others.setdefault(column, Counter())[value_text(cell) if _is_plain(cell) else ""] += 1
    winner = _winner_column(others)
    column = winner or _prompt_column(texts - own)
    looks = "as if it said which response won" if winner else "like the prompt"
    return column and (
        f"has the columns of {format.name}, and a column {column!r} that looks {looks}. Pass format={format.name!r} if it is "
        f"{format.name}; otherwise format={GENERAL!r}, and columns={{...}} for what the columns are"
    )


def _prompt_column(texts: Iterable[str]) -> str:
    """The first of some columns of text that looks like a prompt; ``""`` if none does."""
    by_lower = {column.strip().lower(): column for column in sorted(texts)}
    return next((by_lower[name] for name in _PROMPTS if name in by_lower), "")


def prompt_elsewhere(rows: Iterable[Mapping[str, Any]], reading: Reading) -> str:
    """Which column looks as if it held the prompts that no row has, and what to pass; ``""`` if none does."""
    texts = {column for row in rows for column, cell in row.items() if isinstance(cell, (str, list))}
    column = _prompt_column(texts - set(COLUMNS))
    return column and (
        f"has no prompts, but a column {column!r} that looks like them. Pass columns={{..., 'prompt': {column!r}}}, or "
        f"{_aside(column, reading)} if it says something else"
    )


def images_elsewhere(rows: Iterable[Mapping[str, Any]], reading: Reading) -> str:
    """Which column looks as if it had the images that no row has, and what to pass; ``""`` if none does."""
    if reading.has_images:
        return ""
    found = {name for row in rows for name, cell in row.items() if isinstance(cell, (str, bytes, dict, list))}
    by_lower = {name.strip().lower(): name for name in sorted(found - set(COLUMNS))}
    column = next((by_lower[name] for name in _IMAGES if name in by_lower), "")
    return column and (
        f"has no images, but a column {column!r} that looks like them. Pass columns={{..., 'image': {column!r}}}, or "
        f"{_aside(column, reading)} if responses are judged without them"
    )


def twice_but_for_case(rows: Iterable[Mapping[str, Any]], reading: Reading) -> str:
    """Which two columns could both be one of ours, such as ``label`` and ``Label``; ``""`` if there are none."""
    found = dict.fromkeys(column for row in rows for column in row)
    ours = {name for name in COLUMNS if name in found and name not in reading.columns}
    other = next((name for name in found if name not in ours and name.strip().lower() in ours), "")
    return other and f"has a column {other!r} as well as {other.strip().lower()!r}: pass {_aside(other, reading)}"


def _aside(column: str, reading: Reading) -> str:
    """The option that makes one more column metadata."""
    one = reading.columns.get("metadata")
    known = [*(reading.metadata if one is None else [one]), column]
    return f"columns={{..., 'metadata': {known if len(known) > 1 else column!r}}}"


def _exchanged(names: tuple[str, str], form: str) -> str:
    expected = response_columns(names)
    if not expected or expected == names:
        return ""
    ours = "response_a" if form == "compared" else "chosen"
    return f"has {expected[0]} before {expected[1]}, but columns exchanges them: map {ours} to {expected[0]}"


def _unread_winner(
    others: Counts, rows: Sequence[Mapping[str, Any]], reading: Reading, responses: tuple[str, str]
) -> str:
    """Which column, or columns of which one is true in each row, look as if they said which response won."""
    column = _winner_column(others)
    if not column:
        return ""
    first, second = responses
    marks = _marks(others)
    if len(marks) > 1 and all(sum(is_marked(row.get(name)) for name in marks) == 1 for row in rows):
        return (
            f"has the columns {', '.join(marks)}, of which one is true in each row: they look as if they said which "
            f"response won. Pass {winner_option(marks)}, where A is {first} and B is {second}"
        )
    values = others[column]
    return (
        f"has a column {column!r} that looks as if it said which response won; its values are {listed(values)}. Pass "
        f"columns={{..., 'winner': {column!r}}}, {winner_option(values)}, where A is {first} and B is {second}; or "
        f"{_aside(column, reading)} if it says something else"
    )


def _undeclared(column: str, field: str, values: Counter[str], missing: Counter[str], declared: object) -> str:
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
    known = "" if declared is None or missing.keys() == values.keys() else f", next to {listed(values - missing)}"
    values_found = (
        f"has values in the column {column!r} {is_new}: {listed(values if declared is None else missing)}{known}"
    )
    return f"{values_found}. Pass {option} with {meanings} for each{threshold}"


def _are_numbers(values: Iterable[str]) -> bool:
    return all(re.fullmatch(r"-?\d+(\.\d+)?", value) for value in values)


def _marks(others: Counts) -> list[str]:
    """The columns that only a word in their names and marks such as 0 and 1 make look as if they said which response won."""
    marks = {"0", "1", "True", "False"}
    return [name for name, values in others.items() if winner_likeness(name, values) == 1 and values.keys() <= marks]


def _is_plain(cell: object) -> bool:
    return isinstance(cell, (str, int, float))


def _complete_form(row: Mapping[str, Any]) -> str:
    """The form of a row that has all its columns; ``""`` otherwise."""
    if "label" in row and not row.keys().isdisjoint(RESPONSES) and not row.keys() >= PAIR:
        return "response"
    if row.keys() >= PAIR:
        return "pair"
    return "compared" if row.keys() >= COMPARED else ""


def _winner_column(others: Mapping[str, Counter[str]]) -> str:
    """The column that looks most as if it said which response won; ``""`` if none does."""
    likeness = {column: winner_likeness(column, values) for column, values in others.items()}
    best = max(likeness, key=lambda column: likeness[column], default="")
    return best if likeness.get(best) else ""


def _may_be_label(column: str, values: Counter[str]) -> bool:
    """Whether a column has few values, and is not one that names rows or has another one in each."""
    return column.strip().lower() != "id" and 2 <= len(values) <= min(12, max(2, values.total() - 1))


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
        renamed |= {"response_a": responses[0], "response_b": responses[1]}
        marks = _marks(others)
        if len(marks) > 1 and winner in marks:
            return (
                f"; {responses[0]} and {responses[1]} look like two responses, and {', '.join(marks)} as if they said "
                f"which won. Pass columns={renamed}, {winner_option(marks)}"
            )
        renamed |= {"winner": winner} if winner else {}
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
        (column for column in columns if column not in (response, prompt) and _may_be_label(column, values(column))), ""
    )
    if response and label:
        renamed |= {} if response in ("completion", "response", "text") else {"response": response}
        renamed |= {} if label == "label" else {"label": label}
        is_plain = all(Verdicts().labels_known(value) is not None for value in values(label))
        means = "" if is_plain else f", {labels_option(values(label))}"
        return f"; {response} and {label} look like texts with a label: pass columns={renamed}{means}"
    if response and not prompt and "label" not in columns:
        return f"; {response} looks like texts, but no column like their labels: pass columns={{'label': ...}}"
    return ""
