r"""Reading a verdict off what an endpoint wrote, or off the probabilities of what it might have written.

Open weights give the probability of every token; an endpoint gives words, and some endpoints the log-probabilities of the
twenty likeliest tokens at each place. From these the verdict is read as from an open model,

    log-odds = log sum_{t spells Yes} P(t) - log sum_{t spells No} P(t),

at the token where the verdict stands. A spelling that is not among the listed tokens is less likely than any of them and
no likelier than the probability that they leave over; the smaller of the two is used instead, and no probability counts
as less than ``exp(-30)``.

A verdict in words is a whole word in the place of a verdict (at the opening of the answer, after "Answer:", at the end of
a clause), in any letter case, with or without markup. "There is no reason to doubt it" contains the word "no" but no
verdict. Text with neither verdict, or both, is None.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from arm_lens.evaluation.health import LEAST_MASS
from arm_lens.judges.endpoint.answers import Answer, AnswerToken

LEAST_LOGPROB = -30.0

_MARKUP = str.maketrans(dict.fromkeys('*_`"“”#>[](){}$\\', " "))
_THINKING = re.compile(r"\A\s*<think>.*?(</think>|\Z)", re.DOTALL)
_END = r"(?=[^\S\n]*(?:[.,;:!?]|['’](?!\w)|$)|\s+[-–—])"
"""What follows a verdict: punctuation, the end of the line, or a dash."""


@dataclass(frozen=True)
class Reading:
    """One verdict, read."""

    positive: bool | None
    """None if the answer has no verdict."""
    log_odds: float | None
    """The positive verdict against the negative; None without log-probabilities."""

    @property
    def probability(self) -> float:
        """P(positive), of the two verdicts alone; without log-probabilities 1 or 0, and 0.5 without a verdict."""
        if self.log_odds is not None:
            return 1 / (1 + math.exp(-self.log_odds))
        return 0.5 if self.positive is None else float(self.positive)


class VerdictReader:
    """Reads the verdicts of one layout by their spellings; with ``rationale``, on the last line, after the reasons."""

    def __init__(self, positive: Sequence[str], negative: Sequence[str], *, rationale: bool = False) -> None:
        self.rationale = rationale
        self._sides = {spelling.casefold(): True for spelling in positive}
        self._sides |= {spelling.casefold(): False for spelling in negative}
        self._letters = {spelling for spelling in (*positive, *negative) if len(spelling) == 1}
        spellings = sorted([*positive, *negative], key=len, reverse=True)
        words = "|".join(map(re.escape, spellings))
        several = "|".join(re.escape(spelling) for spelling in spellings if len(spelling) > 1)
        # "Yes it does" opens with a verdict; "A response ..." does not.
        opened = rf"(?:{words}){_END}" + (rf"|(?:{several})(?=\s+(?:it|this|that|the|i)\b)" if several else "")
        label = (
            r"\b(?:answer|verdict|judge?ment|decision|conclusion)\W+(?:is\W+|would be\W+)?(?:response\W+|option\W+)?"
        )
        loose = re.IGNORECASE | re.MULTILINE
        self._opening = re.compile(rf"\A\W*(?:(?:response|option|choice)\s+)?(?P<verdict>{opened})", loose)
        self._label = re.compile(rf"{label}(?P<verdict>{words}){_END}", loose)
        # Within a sentence, "a" is an article: single letters count there only as they are spelled.
        exact = "|".join(re.escape(one) if len(one) == 1 else f"(?i:{re.escape(one)})" for one in spellings)
        before = r"(?<![\w/])(?<!\b[Nn]ot )(?<!n't )(?<!n’t )(?<!or )(?<!\band )"
        self._clause = re.compile(rf"{before}(?P<verdict>{exact}){_END}", re.MULTILINE)

    def read(self, answer: Answer) -> Reading:
        """The verdict of an answer."""
        positive = self.read_text(answer.text)
        if self.rationale and answer.finish == "length":
            positive = None  # half a rationale has no verdict yet
        if answer.tokens and not self.rationale and not _THINKING.match(answer.text):
            log_odds = self.read_tokens(answer.tokens, positive)
            if log_odds is not None:
                return Reading(positive, log_odds)
        return Reading(positive, None)

    def read_text(self, text: str) -> bool | None:
        """The verdict in a text: True for the positive one, None for neither or both."""
        text = re.sub(r"[^\S\n]+", " ", _THINKING.sub("", text).translate(_MARKUP)).strip()
        last = text.rsplit("\n", 1)[-1].strip()
        verdict = self._read_region(last if self.rationale else text)
        if verdict is None and self.rationale:
            verdict = self._one_of(list(self._label.finditer(text))[-1:])
        return verdict

    def read_tokens(self, tokens: Sequence[AnswerToken], positive: bool | None) -> float | None:
        """The log-odds of the positive verdict at the token where ``positive``, the verdict in the text, stands.

        Without a verdict in the text, the first token is read, as from an open model. None if no token spells the verdict of
        the text, whose pieces then have probabilities that are not the verdict's; or if the text has none and the verdicts
        are not likely at the first token.
        """
        places = [number for number, token in enumerate(tokens) if self._side(token.text) is positive]
        if positive is not None and not places:
            return None
        token = tokens[0 if positive is None else places[0]]
        listed = list(dict.fromkeys(token.top))  # different tokens may have the same text
        if token.text not in dict(listed):
            listed.append((token.text, token.logprob))
        sides: dict[bool, list[float]] = {True: [], False: []}
        for text, logprob in listed:
            side = self._side(text)
            if side is not None:
                sides[side].append(logprob)
        mass = math.fsum(math.exp(one) for side in sides.values() for one in side)
        if positive is None and mass < LEAST_MASS:
            return None
        left = 1 - math.fsum(math.exp(one) for _, one in listed)
        unlisted = min(min(one for _, one in listed), math.log(left) if left > 0 else LEAST_LOGPROB)
        yes, no = (float(np.logaddexp.reduce(sides[side] or [unlisted])) for side in (True, False))
        return max(yes, LEAST_LOGPROB) - max(no, LEAST_LOGPROB)

    def _read_region(self, text: str) -> bool | None:
        opening = self._opening.match(text)
        labels = list(self._label.finditer(text))[-1:]
        stated = [match for match in (opening, *labels) if match]
        return self._one_of(stated or list(self._clause.finditer(text)))

    def _one_of(self, matches: Sequence[re.Match[str]]) -> bool | None:
        verdicts = {self._sides[match["verdict"].casefold()] for match in matches}
        return verdicts.pop() if len(verdicts) == 1 else None

    def _side(self, token: str) -> bool | None:
        """Which verdict a token spells; a single letter only in its own case, as with an open model."""
        token = token.strip(" \t\n▁Ġ")
        return None if len(token) == 1 and token not in self._letters else self._sides.get(token.casefold())
