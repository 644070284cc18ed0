"""From a conversation to the text that a chat model reads, through the chat template of its tokenizer.

A chat template is a program, and what it does with a conversation need not be what was meant: it may leave out all messages
but the last, refuse a system message, expect a list of parts where others expect a text, write today's date, or end within
a thought. So a conversation is rendered once with a mark in place of each text. Where the marks are found is where the
texts belong (`ChatForm`), and a mark that is missing is an error, not a verdict on something else; so is a template that
changes or shortens a sample text. The texts themselves
never pass through the template: no text can change what it does, and it is known of every character whether it was given
or written by the template (`arm_lens.engine.tokens.MarkedText`).

- A text is stripped if the template strips texts.
- Images are parts of a message's content, ``{"type": "image"}``, and stand where the template writes the token for one.
- If texts are lost, messages are rendered again with a list of parts, ``[{"type": "text", "text": ...}]``, as the templates
  of multimodal models want it.
- If the template has no place for a system message, that message begins the first turn of the user.
- The clock is set to a fixed day, so that the same question is the same text tomorrow.
- The text must end where an answer begins. A template that thinks first is to be told not to
  (``chat_template_kwargs={"enable_thinking": False}``), or its thought is closed by the judge template's ``prefill``.
"""

from __future__ import annotations

import datetime
import json
import re
import weakref
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from jinja2 import TemplateError
from transformers import PreTrainedTokenizerBase

from arm_lens.engine.images import image_token_of, pieces_of
from arm_lens.engine.tokens import MarkedText, control_tokens, encode_text
from arm_lens.preferences.images import Image, marks_in

FIXED_DATE = datetime.date(2025, 1, 1)
"""What a chat template that asks for the date is told, unless another is given."""
THOUGHTS = (
    ("<think>", "</think>"),
    ("<thinking>", "</thinking>"),
    ("<thought>", "</thought>"),
    ("<reasoning>", "</reasoning>"),
    ("<seed:think>", "</seed:think>"),
    ("[THINK]", "[/THINK]"),
    ("◁think▷", "◁/think▷"),
    ("<|begin_of_thought|>", "<|end_of_thought|>"),
    ("<|START_THINKING|>", "<|END_THINKING|>"),
    ("<|channel|>analysis", "<|end|>"),
)
"""How models begin and end a thought."""
CLOCK = re.compile(r"strftime_now\s*\(\s*(?:format\s*=\s*)?(['\"])((?:(?!\1).)*)\1\s*\)")
"""How a chat template asks for the date."""
MARK = re.compile("\ue000([0-9]+)\ue001")
EDGE = " \n "
"""Around a mark, to see whether a template strips texts."""
SAMPLE = (
    'Text no. {number}, in UPPER and lower  case:\n\n\t- "quoted" & <b>it\'s</b> {{{{ braced }}}}, 50 % \\n #1\n\n'
    + "and so on " * 2000
).strip()
"""Text that whatever rewrites texts would change; without white space around it."""
FAILURES = (TemplateError, TypeError, ValueError, KeyError, AttributeError)
"""What templates raise at a message that they do not accept."""


class ChatTemplateError(ValueError):
    """A tokenizer's chat template cannot put a question: it leaves something out, or does not end where an answer begins."""


@dataclass(frozen=True)
class Turn:
    """One message of a conversation."""

    role: str
    text: str
    name: str
    """What errors call it."""


@dataclass(frozen=True)
class Place:
    """Where a text belongs, and what is stripped of it."""

    text: int
    """The number of the text: that of its turn, if there are no images, which divide turns into several texts."""
    strip_left: bool
    strip_right: bool

    def fill(self, text: str) -> MarkedText:
        """The text as it stands here."""
        start = len(text) - len(text.lstrip()) if self.strip_left else 0
        end = len(text.rstrip()) if self.strip_right else len(text)
        return MarkedText.joined([text]).between(start, max(start, end))


@dataclass(frozen=True)
class ImagePlace:
    """Where an image belongs."""

    image: int
    token: str
    """What the template writes for it."""


@dataclass(frozen=True)
class Shape:
    """What a template sees of a turn: its role, and the kinds of its parts, ``text`` and ``image``."""

    role: str
    parts: tuple[str, ...] = ("text",)

    @property
    def texts(self) -> int:
        """The number of its texts."""
        return self.parts.count("text")


@dataclass(frozen=True)
class ChatForm:
    """What a chat template makes of a conversation of this shape: its own words, and the places of texts and images."""

    pieces: tuple[str | Place | ImagePlace, ...]
    before_answer: str | None
    """What stands between the last text and an answer in a conversation that has one; None if that cannot be found out."""

    @property
    def end(self) -> str:
        """What follows the last text."""
        return self.pieces[-1] if isinstance(self.pieces[-1], str) else ""

    def fill(self, texts: Sequence[str], images: Sequence[Image] = ()) -> MarkedText:
        """The conversation with these texts, and the marks of these images; by default with what the template writes."""

        def filled(piece: str | Place | ImagePlace) -> str:
            if isinstance(piece, Place):
                return piece.fill(texts[piece.text])
            if isinstance(piece, ImagePlace):
                return images[piece.image].mark if images else piece.token
            return piece

        return MarkedText.joined(map(filled, self.pieces))


def chat_text(
    tokenizer: PreTrainedTokenizerBase,
    turns: Sequence[Turn],
    *,
    kwargs: Mapping[str, Any] | None = None,
    date: datetime.date = FIXED_DATE,
    prefill: str = "",
) -> MarkedText:
    """A conversation as the model reads it, up to where its next answer begins.

    Args:
        tokenizer: with a chat template.
        turns: the messages; a first one with the role ``system`` joins the user's first if the template has no place for it.
        kwargs: variables of the chat template, such as ``enable_thinking``.
        date: what the template is told of the date.
        prefill: what the answer already begins with.

    Raises:
        ChatTemplateError: naming what the template leaves out or refuses; or if the text does not end where an answer begins.
    """
    kwargs = kwargs or {}
    try:
        form = chat_form(tokenizer, turns, kwargs=kwargs, date=date)
    except ChatTemplateError:
        if turns[0].role != "system" or len(turns) < 2:
            raise
        joined = MarkedText.joined([turns[0].text, "\n\n", turns[1].text])
        turns = [replace(turns[1], text=joined), *turns[2:]]
        form = chat_form(tokenizer, turns, kwargs=kwargs, date=date)
    _check_end(form, prefill)
    pieces = [piece for one in turns for piece in (pieces_of(one.text) if marks_in(one.text) else [one.text])]
    texts = [one for one in pieces if isinstance(one, str)]
    return form.fill(texts, [one for one in pieces if isinstance(one, Image)]) + prefill


_FORMS: weakref.WeakKeyDictionary[PreTrainedTokenizerBase, dict[object, ChatForm]] = weakref.WeakKeyDictionary()


def chat_form(
    tokenizer: PreTrainedTokenizerBase, turns: Sequence[Turn], *, kwargs: Mapping[str, Any], date: datetime.date
) -> ChatForm:
    """Where a tokenizer's chat template puts the texts of a conversation; only roles matter, and where images are.

    Raises:
        ChatTemplateError: naming the text that has no place, or the error of the template.
    """
    shapes = tuple(map(_shape, turns))
    settings = json.dumps(dict(kwargs), sort_keys=True, default=repr)
    image_token = image_token_of(tokenizer)
    key = (str(tokenizer.chat_template), repr(tokenizer.special_tokens_map), shapes, image_token, settings, date)
    known = _FORMS.setdefault(tokenizer, {})
    if key not in known:
        known[key] = _found_form(_Template(tokenizer, kwargs, date, image_token), turns, shapes)
    return known[key]


def _shape(turn: Turn) -> Shape:
    if not marks_in(turn.text):
        return Shape(turn.role)
    return Shape(turn.role, tuple("image" if isinstance(one, Image) else "text" for one in pieces_of(turn.text)))


def ends_of_turn(
    tokenizer: PreTrainedTokenizerBase, *, kwargs: Mapping[str, Any] | None = None, date: datetime.date = FIXED_DATE
) -> set[int]:
    """What ends a chat model's turn: the end of everything, or a control token that the template puts after answers."""
    turns = [Turn("user", "", "a question"), Turn("assistant", "", "an answer")]
    form = chat_form(tokenizer, turns, kwargs=kwargs or {}, date=date)
    after = encode_text(tokenizer, form.end)[:1]
    control = {tokenizer.convert_tokens_to_ids(token) for token in control_tokens(tokenizer)}
    return ({*after} & control) | ({tokenizer.eos_token_id} - {None})


def template_key(tokenizer: PreTrainedTokenizerBase) -> tuple[object, ...]:
    """A value that changes when the tokenizer's chat template or vocabulary does."""
    return (str(tokenizer.chat_template), repr(tokenizer.special_tokens_map), len(tokenizer))


@dataclass(frozen=True)
class _Template:
    """A chat template as it is run."""

    tokenizer: PreTrainedTokenizerBase
    kwargs: Mapping[str, Any]
    date: datetime.date
    image_token: str | None
    """What it writes for an image; None if the model reads text only."""

    def pieces(self, shapes: Sequence[Shape], edge: str, *, parts: bool, end: bool) -> list[str | Place | ImagePlace]:
        """What it writes of marks in place of texts, cut at the marks and at the images."""
        count = sum(one.texts for one in shapes)
        text = self.rendered(
            shapes, [f"{edge}\ue000{number}\ue001{edge}" for number in range(count)], parts=parts, end=end
        )
        token = self.image_token if any("image" in one.parts for one in shapes) else None
        return _numbered(_pieces(text), token)

    def rendered(self, shapes: Sequence[Shape], texts: Sequence[str], *, parts: bool, end: bool) -> str:
        """What it writes of a conversation of this shape; ``parts`` makes contents lists of parts."""
        left, messages = iter(texts), []
        for one in shapes:
            of_turn = [{"type": kind} | ({"text": next(left)} if kind == "text" else {}) for kind in one.parts]
            messages.append({"role": one.role, "content": of_turn if parts else of_turn[0]["text"]})
        template = _on_day(self.tokenizer.get_chat_template(), self.date)
        untyped: Any = self.tokenizer.apply_chat_template
        kwargs = dict(self.kwargs)
        return str(untyped(messages, chat_template=template, tokenize=False, add_generation_prompt=end, **kwargs))


def _found_form(template: _Template, turns: Sequence[Turn], shapes: Sequence[Shape]) -> ChatForm:
    turn_of = [number for number, one in enumerate(shapes) for _ in range(one.texts)]
    images, refusals = sum(one.parts.count("image") for one in shapes), list[str]()
    for parts in (True,) if images else (False, True):
        try:
            bare, pieces = (template.pieces(shapes, edge, parts=parts, end=True) for edge in ("", EDGE))
        except FAILURES as error:
            refusals.append(f"the chat template refuses the conversation: {error}")
            continue
        places = [one.text for one in pieces if isinstance(one, Place)]
        missing = dict.fromkeys(turns[turn].name for text, turn in enumerate(turn_of) if text not in places)
        seen = sum(isinstance(one, ImagePlace) for one in pieces)
        if missing:
            refusals.append(f"the chat template leaves out {', '.join([*missing][:3])}")
        elif turn_of[places[-1]] != len(turns) - 1:
            refusals.append(f"the chat template puts {turns[-1].name} before {turns[turn_of[places[-1]]].name}")
        elif seen != images:
            refusals.append(f"the chat template writes {seen} of {images} images")
        elif [one for one in pieces if isinstance(one, str)] != [one for one in bare if isinstance(one, str)]:
            refusals.append("the chat template rewrites texts")
        elif (reason := _rewriting(template, pieces, shapes, parts=parts)) is not None:
            refusals.append(reason)
        else:
            return ChatForm(tuple(pieces), _before_answer(template, shapes, parts))
    raise ChatTemplateError(
        f"{refusals[0]}; use a tokenizer with another chat template, or ask without it, by a judge template with chat=False"
    )


def _rewriting(
    template: _Template, pieces: Sequence[str | Place | ImagePlace], shapes: Sequence[Shape], *, parts: bool
) -> str | None:
    """Why texts cannot be put in place of the marks: the template changes, shortens or refuses them; None if they can."""
    samples = [SAMPLE.format(number=number) for number in range(sum(one.texts for one in shapes))]
    try:
        rendered = template.rendered(shapes, samples, parts=parts, end=True)
    except FAILURES as error:
        return f"the chat template refuses texts: {error}"
    expected = ChatForm(tuple(pieces), None).fill(samples)
    return None if rendered == expected else "the chat template rewrites texts"


def _on_day(template: str, date: datetime.date) -> str:
    """A chat template with the date in place of its questions to the clock.

    Raises:
        ChatTemplateError: if it asks the clock for what is only known while it runs.
    """
    day = datetime.datetime.combine(date, datetime.time())
    fixed = CLOCK.sub(lambda call: json.dumps(day.strftime(call[2]), ensure_ascii=False), template)
    if re.search(r"strftime_now(?!\s+is\s)", fixed):
        raise ChatTemplateError("the chat template reads the clock in a way that cannot be fixed to a date")
    return fixed


def _pieces(text: str) -> list[str | Place]:
    """A rendered text, cut at the marks."""
    pieces: list[str | Place] = []
    start = 0
    for match in MARK.finditer(text):
        before, after = text[start : match.start()], text[match.end() :]
        left, right = before.endswith(EDGE), after.startswith(EDGE)
        pieces += [before.removesuffix(EDGE), Place(int(match[1]), not left, not right)]
        start = match.end() + (len(EDGE) if right else 0)
    return [one for one in [*pieces, text[start:]] if one]


def _numbered(pieces: Sequence[str | Place], token: str | None) -> list[str | Place | ImagePlace]:
    """The pieces, with the template's words cut at what it writes for images."""
    if token is None:
        return [*pieces]
    found: list[str | Place | ImagePlace] = []
    for piece in pieces:
        for number, words in enumerate(piece.split(token) if isinstance(piece, str) else ()):
            images = sum(isinstance(one, ImagePlace) for one in found)
            found += [*([ImagePlace(images, token)] if number else []), *([words] if words else [])]
        found += [] if isinstance(piece, str) else [piece]
    return found


def _before_answer(template: _Template, shapes: Sequence[Shape], parts: bool) -> str | None:
    try:
        pieces = template.pieces([*shapes, Shape("assistant")], EDGE, parts=parts, end=False)
    except FAILURES:
        return None
    order = [one.text if isinstance(one, Place) else one for one in pieces]
    answer = sum(one.texts for one in shapes)
    question = answer - 1
    if answer not in order or question not in order[: order.index(answer)]:
        return None
    between = pieces[order.index(answer) - 1]
    return between if isinstance(between, str) else ""


def _check_end(form: ChatForm, prefill: str) -> None:
    end = form.end + prefill
    for begin, close in THOUGHTS:
        if end.rfind(begin) > end.rfind(close):
            raise ChatTemplateError(
                f"the chat template ends within a thought ({end[-24:]!r}), where no verdict is due: pass "
                'chat_template_kwargs={"enable_thinking": False} if the template knows it, or close the thought by a judge '
                f'template with prefill="\\n{close}\\n\\n"'
            )
    missing = (form.before_answer or "").removeprefix(end) if (form.before_answer or "").startswith(end) else ""
    if missing.strip():
        thinks = any(begin in missing for begin, _ in THOUGHTS)
        remedy = 'chat_template_kwargs={"enable_thinking": False}, or ' if thinks else ""
        raise ChatTemplateError(
            f"the chat template writes {missing!r} before an answer, but not at the end of a question, where the verdict is "
            f"therefore not yet due: pass {remedy}a judge template with prefill={missing!r}"
        )
