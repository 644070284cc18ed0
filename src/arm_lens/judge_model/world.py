"""The synthetic data of the bundled judge model: requests about places, and replies with known attributes.

A grammar writes every reply as three or four simple English sentences: a courtesy (polite or rude), a statement about a
place (positive or negative), a piece of advice (safe or unsafe) and, unless the reply is brief, some details. Replies
may be laid out as a list, and may be emphatic. A reply *answers* the request if its statement is about the place in the
request; this is the only attribute that cannot be told from the reply alone.

Attributes are independent fair coins unless the caller fixes them, so the attribute of one criterion says nothing about
another. A criterion is an attribute or its opposite (``detailed`` is the opposite of ``brief``).

The training and test splits share only the words. Sentence frames, the order of sentences, and combinations of words
(adjective and place, verb and object, thanks and reason) belong to one split or the other, so that accuracy on the test
split measures generalisation.
"""

from __future__ import annotations

import random
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Literal

Split = Literal["train", "test"]

PLACES = (
    "garden school river bridge market museum castle village library station harbor forest beach hotel farm theater "
    "tower park church bakery cafe lake valley island temple palace canal cinema factory mill prison square"
).split()
POSITIVE = (
    "lovely bright charming pleasant cheerful splendid beautiful delightful warm clean superb fresh graceful calm"
).split()
NEGATIVE = "dull hideous gloomy dreary filthy terrible shabby bleak cold noisy dirty bad nasty dreadful".split()
VERBS = "bring carry take buy pack hold".split()
SAFE = "map coat lamp hat book snack blanket ticket camera pencil scarf sandwich".split()
UNSAFE = "gun bomb knife razor rifle weapon grenade pistol dagger sword bullet cannon".split()
QUALITIES = "wooden tall small long round white narrow big green heavy".split()
PARTS = "gate wall roof door path tree clock window lawn fence".split()
INTENSIFIERS = "really truly very".split()
THANKS = ("Thank you", "Thanks", "Many thanks", "I am grateful")
THANKS_FOR = (" for asking", " for your question", " for writing to me", ", dear friend")
INSULTS = ("Stop bothering me", "Quit annoying me", "Leave me alone", "Get lost")
INSULTED_BY = (" with your question", " right now", " this minute", ", you fool")

FRAMES: dict[Split, dict[str, tuple[str, ...]]] = {
    "train": {
        "request": (
            "Tell me about the {place}.",
            "What is the {place} like?",
            "Describe the {place} to me.",
            "Can you tell me about the {place}?",
            "I want to know about the {place}.",
            "What do you think of the {place}?",
        ),
        "statement": (
            "The {place} is {one} and {two}",
            "The {place} looks {one} and {two}",
            "People find the {place} {one} and {two}",
            "I think the {place} is {one} and {two}",
            "This {place} is a {one} and {two} place",
            "It is {one} and {two} at the {place}",
        ),
        "statement_list": (
            "The {place}:\n- {one}\n- {two}",
            "About the {place}:\n- {one}\n- {two}",
            "People find the {place}:\n- {one}\n- {two}",
        ),
        "advice": (
            "{Verb} a {object} with you",
            "You should {verb} a {object}",
            "Remember to {verb} a {object}",
            "Always {verb} a {object} there",
            "I think you should {verb} a {object}",
        ),
        "details": (
            "It has a {q1} {p1} and a {q2} {p2}",
            "There is a {q1} {p1} near a {q2} {p2}",
            "You can see a {q1} {p1} and a {q2} {p2}",
            "You find a {q1} {p1} near the {q2} {p2}",
            "The {q1} {p1} is near the {q2} {p2}",
            "Near the {q1} {p1} there is a {q2} {p2}",
        ),
        "details_list": (
            "It has:\n- a {q1} {p1}\n- a {q2} {p2}",
            "You can see:\n- a {q1} {p1}\n- a {q2} {p2}",
            "There you find:\n- a {q1} {p1}\n- a {q2} {p2}",
            "Near it:\n- a {q1} {p1}\n- a {q2} {p2}",
        ),
        "order": (
            "courtesy statement details advice",
            "statement details advice courtesy",
            "courtesy advice statement details",
            "advice statement details courtesy",
            "statement courtesy details advice",
            "statement advice courtesy details",
        ),
    },
    "test": {
        "request": (
            "I want to know what the {place} is like.",
            "Can you describe the {place} to me?",
            "What can you tell me about the {place}?",
        ),
        "statement": (
            "I find the {place} {one} and {two}",
            "People think the {place} looks {one} and {two}",
            "The {place} is a {one} and {two} place",
        ),
        "statement_list": ("I find the {place}:\n- {one}\n- {two}", "I think of the {place}:\n- {one}\n- {two}"),
        "advice": ("Always remember to {verb} a {object}", "You should always {verb} a {object} with you"),
        "details": ("There you can see a {q1} {p1} and a {q2} {p2}", "It has a {q1} {p1} near a {q2} {p2}"),
        "details_list": ("There you can see:\n- a {q1} {p1}\n- a {q2} {p2}", "There is:\n- a {q1} {p1}\n- a {q2} {p2}"),
        "order": ("statement details courtesy advice", "advice courtesy statement details"),
    },
}


@dataclass(frozen=True, kw_only=True)
class Attributes:
    """The attributes of a reply, each true or false."""

    answers: bool
    """The statement is about the place in the request."""
    safe: bool
    """The advice names a harmless object, not a weapon."""
    polite: bool
    """The courtesy is thanks, not an insult."""
    positive: bool
    """The statement's adjectives are favourable."""
    brief: bool
    """There are no details."""
    listed: bool
    """Statement and details are laid out as bullet points."""
    emphatic: bool
    """Sentences end in exclamation marks, and one adjective has an intensifier."""


ATTRIBUTES: tuple[str, ...] = tuple(field.name for field in fields(Attributes))

CRITERIA: dict[str, tuple[str, bool]] = {
    "answers": ("answers", True),
    "safe": ("safe", True),
    "polite": ("polite", True),
    "positive": ("positive", True),
    "brief": ("brief", True),
    "detailed": ("brief", False),
    "list": ("listed", True),
    "emphatic": ("emphatic", True),
}
"""Criterion name -> (attribute, the value that meets the criterion)."""

CRITERION_TEXT: dict[str, str] = {
    "answers": "The reply is about the place the request asks about.",
    "safe": "The reply gives safe advice.",
    "polite": "The reply is polite.",
    "positive": "The reply speaks well of the place.",
    "brief": "The reply is brief.",
    "detailed": "The reply gives details.",
    "list": "The reply is laid out as a list.",
    "emphatic": "The reply is emphatic.",
}


@dataclass(frozen=True)
class Item:
    """A request, a reply to it, and the attributes of the reply."""

    request: str
    reply: str
    attributes: Attributes

    def meets(self, criterion: str) -> bool:
        """Whether the reply meets ``criterion`` (a key of `CRITERIA`)."""
        attribute, value = CRITERIA[criterion]
        return bool(getattr(self.attributes, attribute)) == value


class World:
    """A seeded generator of requests and replies.

    Args:
        split: whose sentence frames and word combinations are used.
        seed: the same split and seed give the same items in the same order.
    """

    def __init__(self, split: Split, seed: int) -> None:
        if split not in FRAMES:
            raise ValueError(f"split must be 'train' or 'test', not {split!r}")
        self.split: Split = split
        self._random = random.Random(f"{split} {seed}")

    def attributes(self, fixed: Mapping[str, bool] | None = None) -> Attributes:
        """Independent fair coins, except for the attributes in ``fixed``."""
        fixed = fixed or {}
        unknown = set(fixed) - set(ATTRIBUTES)
        if unknown:
            raise ValueError(f"unknown attribute {sorted(unknown)[0]!r}; known are {', '.join(ATTRIBUTES)}")
        return Attributes(**{name: fixed.get(name, self._random.random() < 0.5) for name in ATTRIBUTES})

    def place(self, *, other_than: str | None = None) -> str:
        """A random place, different from ``other_than``."""
        return self._random.choice([place for place in PLACES if place != other_than])

    def request(self, place: str) -> str:
        """A random request for information about ``place``."""
        return self._frame("request").format(place=place)

    def reply(self, place: str, attributes: Attributes) -> str:
        """A random reply, with the given attributes, to a request about ``place``."""
        end = "!" if attributes.emphatic else "."
        layout = "_list" if attributes.listed else ""
        subject = place if attributes.answers else self.place(other_than=place)
        courtesy = self._combine(THANKS, THANKS_FOR) if attributes.polite else self._combine(INSULTS, INSULTED_BY)
        statement = self._statement(subject, attributes, self._frame("statement" + layout))
        verb, thing = self._combine(VERBS, SAFE if attributes.safe else UNSAFE)
        advice = self._frame("advice").format(verb=verb, Verb=verb.capitalize(), object=thing)
        details = ""
        if not attributes.brief:
            frame = self._frame("details" + layout)
            (q1, p1), (q2, p2) = (self._combine(QUALITIES, PARTS) for _ in range(2))
            details = frame.format(q1=q1, p1=p1, q2=q2, p2=p2)
        sentences = {"courtesy": "".join(courtesy), "statement": statement, "advice": advice, "details": details}
        text, text_is_list = "", False
        for part in self._frame("order").split():
            if sentences[part]:
                listed = attributes.listed and part in ("statement", "details")
                gap = "" if not text else "\n" if listed or text_is_list else " "
                text += gap + sentences[part] + end
                text_is_list = listed
        return text

    def item(self, fixed: Mapping[str, bool] | None = None, *, place: str | None = None) -> Item:
        """A random request and reply; attributes not in ``fixed`` are fair coins."""
        place = place or self.place()
        attributes = self.attributes(fixed)
        return Item(self.request(place), self.reply(place, attributes), attributes)

    def items(self, count: int, fixed: Mapping[str, bool] | None = None) -> list[Item]:
        """``count`` independent items: see `item`."""
        return [self.item(fixed) for _ in range(count)]

    def pair(self, criterion: str, fixed: Mapping[str, bool] | None = None) -> tuple[Item, Item]:
        """Two replies to one request: the first meets ``criterion``, the second does not.

        The other attributes are independent fair coins for each reply, except those in ``fixed``.
        """
        attribute, value = CRITERIA[criterion]
        place = self.place()
        request = self.request(place)
        replies = [self.attributes({**(fixed or {}), attribute: met}) for met in (value, not value)]
        chosen, rejected = (Item(request, self.reply(place, attributes), attributes) for attributes in replies)
        return chosen, rejected

    def _frame(self, kind: str) -> str:
        return self._random.choice(FRAMES[self.split][kind])

    def _combine(self, one: Sequence[str], two: Sequence[str], first: str | None = None) -> tuple[str, str]:
        """A random combination of words of two lists that belongs to this split; a quarter of all belong to ``test``."""
        while True:
            i = self._random.randrange(len(one)) if first is None else one.index(first)
            j = self._random.randrange(len(two))
            if ((i + j) % 4 == 3) == (self.split == "test"):
                return one[i], two[j]

    def _statement(self, subject: str, attributes: Attributes, frame: str) -> str:
        adjectives = POSITIVE if attributes.positive else NEGATIVE
        _, one = self._combine(PLACES, adjectives, subject)
        two = one
        while two == one:
            _, two = self._combine(PLACES, adjectives, subject)
        words = [one, two]
        if attributes.emphatic:
            index = self._random.randrange(2)
            words[index] = f"{self._random.choice(INTENSIFIERS)} {words[index]}"
        return frame.format(place=subject, one=words[0], two=words[1])


def words() -> list[str]:
    """Every word and punctuation mark that the world uses, in lower case and sorted, for the tokenizer's vocabulary."""
    texts = [*PLACES, *POSITIVE, *NEGATIVE, *VERBS, *SAFE, *UNSAFE, *QUALITIES, *PARTS, *INTENSIFIERS]
    texts += [*THANKS, *THANKS_FOR, *INSULTS, *INSULTED_BY, *CRITERION_TEXT.values(), *CRITERIA]
    texts += [". ! ? , : -", "yes no"]
    for frames in FRAMES.values():
        for kind, templates in frames.items():
            if kind != "order":
                texts += [re.sub(r"\{\w+\}", " ", template) for template in templates]
    return sorted(set(re.findall(r"\w+|[^\w\s]", " ".join(texts).lower())))
