"""A reward for every turn of a conversation: each message of the assistant is judged as the response to all before it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pandas as pd

from arm_lens.judges.base import Judge, ScoreKind
from arm_lens.judges.checks import warn_of_skipped
from arm_lens.preferences.messages import messages_of

FIRST = "it begins the conversation: there is nothing that it responds to"


def turn_rewards(
    judge: Judge, conversations: Sequence[object], *, kind: ScoreKind = "reward", progress: bool = False
) -> pd.DataFrame:
    """Judge every turn of the assistant, given the messages before it.

    Args:
        judge: any that scores single responses. Its prompt is the conversation so far, in whatever form it reads messages.
        conversations: a list of conversations, each a list of messages with a role and a content.
        kind: the kind of score; see `Judge.score`.
        progress: show a progress bar.

    Returns:
        One row for each message of the assistant: ``conversation`` (its number, from 0), ``turn`` (how many messages of the
        assistant there are up to and including this one), ``message`` (its number among all messages, from 1), ``response``
        (its text) and ``reward``, NaN if the turn could not be judged.

    Warns:
        SkippedWarning: naming the turns that could not be judged: those that exceed the model's context together with what
            came before, and a first message, which responds to nothing.

    Raises:
        PreferenceFieldError: a ValueError that names the conversation and the message, if one cannot be read.
        ValueError: if the judge only compares responses, or does not give scores of this kind.
    """
    judge.check_kind(kind)
    rows: list[dict[str, Any]] = []
    prompts: list[Any] = []
    for number, conversation in enumerate(conversations):
        messages, turn = messages_of(f"conversation {number}", conversation), 0
        for place, message in enumerate(messages):
            if message["role"] == "assistant":
                turn += 1
                rows.append({
                    "conversation": number, "turn": turn, "message": place + 1, "response": message["content"],
                    "reward": float("nan"),
                })  # fmt: skip
                prompts.append(messages[:place])
    refused = {index: FIRST for index, prompt in enumerate(prompts) if not prompt}
    rest = [index for index in range(len(rows)) if index not in refused]
    texts = [prompts[index] for index in rest], [rows[index]["response"] for index in rest]
    refused |= {rest[index]: reason for index, reason in judge.too_long(*texts).items()}
    if refused:
        names = {index: f"conversation {rows[index]['conversation']}, turn {rows[index]['turn']}" for index in refused}
        warn_of_skipped({names[index]: refused[index] for index in sorted(refused)})
    rest = [index for index in range(len(rows)) if index not in refused]
    if rest:
        texts = [prompts[index] for index in rest], [rows[index]["response"] for index in rest]
        for index, reward in zip(rest, judge.score(*texts, kind=kind, progress=progress).tolist(), strict=True):
            rows[index]["reward"] = reward
    return pd.DataFrame(rows, columns=["conversation", "turn", "message", "response", "reward"])
