"""From a conversation to the text that a chat model reads, through the chat template of its tokenizer.

A chat template is a program, and what it does with a conversation need not be what was meant: it may leave out all messages
but the last, refuse a system message, expect a list of parts where others expect a text, write today's date, or end within
a thought. So a conversation is rendered once with a mark in place of each text. Where the marks are found is where the
texts belong (`ChatForm`), and a mark that is missing is an error, not a verdict on something else; so is a template that
changes or shortens a sample text. The texts themselves
never pass through the template: no text can change what it does, and it is known of every character whether it was given
or written by the template (`arm_lens.engine.tokens.MarkedText`).

- A text is stripped if the template strips texts.
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

from arm_lens.engine.tokens import MarkedText, control_tokens, encode_text

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

    turn: int
    strip_left: bool
    strip_right: bool

    def fill(self, text: str) -> MarkedText:
        """The text as it stands here."""
        start = len(text) - len(text.lstrip()) if self.strip_left else 0
        end = len(text.rstrip()) if self.strip_right else len(text)
        return MarkedText.joined([text]).between(start, max(start, end))


@dataclass(frozen=True)
class ChatForm:
    """What a chat template makes of a conversation with these roles: its own words, and the places of the texts."""

    pieces: tuple[str | Place, ...]
    before_answer: str | None
    """What stands between the last text and an answer in a conversation that has one; None if that cannot be found out."""

    @property
    def end(self) -> str:
        """What follows the last text."""
        return self.pieces[-1] if isinstance(self.pieces[-1], str) else ""

    def fill(self, texts: Sequence[str]) -> MarkedText:
        """The conversation with these texts."""
        return MarkedText.joined([one if isinstance(one, str) else one.fill(texts[one.turn]) for one in self.pieces])


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
    return form.fill([one.text for one in turns]) + prefill


_FORMS: weakref.WeakKeyDictionary[PreTrainedTokenizerBase, dict[object, ChatForm]] = weakref.WeakKeyDictionary()


def chat_form(
    tokenizer: PreTrainedTokenizerBase,
    turns: Sequence[Turn],
    *,
    kwargs: Mapping[str, Any],
    date: datetime.date,
) -> ChatForm:
    """Where a tokenizer's chat template puts the texts of a conversation; only their roles matter.

    Raises:
        ChatTemplateError: naming the text that has no place, or the error of the template.
    """
    roles = [one.role for one in turns]
    settings = json.dumps(dict(kwargs), sort_keys=True, default=repr)
    key = (str(tokenizer.chat_template), repr(tokenizer.special_tokens_map), tuple(roles), settings, date)
    known = _FORMS.setdefault(tokenizer, {})
    if key not in known:
        known[key] = _found_form(tokenizer, turns, roles, kwargs, date)
    return known[key]


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


def _found_form(
    tokenizer: PreTrainedTokenizerBase,
    turns: Sequence[Turn],
    roles: Sequence[str],
    kwargs: Mapping[str, Any],
    date: datetime.date,
) -> ChatForm:
    refusals: list[str] = []
    for parts in (False, True):
        try:
            bare, pieces = (
                _pieces(_rendered(tokenizer, roles, _marks(len(roles), edge), kwargs, date, parts=parts, end=True))
                for edge in ("", EDGE)
            )
        except FAILURES as error:
            refusals.append(f"the chat template refuses the conversation: {error}")
            continue
        places = [one.turn for one in pieces if isinstance(one, Place)]
        missing = [one.name for number, one in enumerate(turns) if number not in places]
        if missing:
            refusals.append(f"the chat template leaves out {', '.join(missing[:3])}")
        elif places[-1] != len(turns) - 1:
            refusals.append(f"the chat template puts {turns[-1].name} before {turns[places[-1]].name}")
        elif [one for one in pieces if isinstance(one, str)] != [one for one in bare if isinstance(one, str)]:
            refusals.append("the chat template rewrites texts")
        elif (reason := _rewriting(tokenizer, pieces, roles, kwargs, date, parts=parts)) is not None:
            refusals.append(reason)
        else:
            return ChatForm(tuple(pieces), _before_answer(tokenizer, roles, kwargs, date, parts))
    raise ChatTemplateError(
        f"{refusals[0]}; use a tokenizer with another chat template, or ask without it, by a judge template with chat=False"
    )


def _rewriting(
    tokenizer: PreTrainedTokenizerBase,
    pieces: Sequence[str | Place],
    roles: Sequence[str],
    kwargs: Mapping[str, Any],
    date: datetime.date,
    *,
    parts: bool,
) -> str | None:
    """Why texts cannot be put in place of the marks: the template changes, shortens or refuses them; None if they can."""
    samples = [SAMPLE.format(number=number) for number in range(len(roles))]
    try:
        rendered = _rendered(tokenizer, roles, samples, kwargs, date, parts=parts, end=True)
    except FAILURES as error:
        return f"the chat template refuses texts: {error}"
    expected = ChatForm(tuple(pieces), None).fill(samples)
    return None if rendered == expected else "the chat template rewrites texts"


def _rendered(
    tokenizer: PreTrainedTokenizerBase,
    roles: Sequence[str],
    texts: Sequence[str],
    kwargs: Mapping[str, Any],
    date: datetime.date,
    *,
    parts: bool,
    end: bool,
) -> str:
    contents = [[{"type": "text", "text": text}] for text in texts] if parts else texts
    messages = [{"role": role, "content": content} for role, content in zip(roles, contents, strict=True)]
    template = _on_day(tokenizer.get_chat_template(), date)
    untyped: Any = tokenizer.apply_chat_template
    return str(untyped(messages, chat_template=template, tokenize=False, add_generation_prompt=end, **dict(kwargs)))


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


def _marks(count: int, edge: str = EDGE) -> list[str]:
    return [f"{edge}\ue000{number}\ue001{edge}" for number in range(count)]


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


def _before_answer(
    tokenizer: PreTrainedTokenizerBase,
    roles: Sequence[str],
    kwargs: Mapping[str, Any],
    date: datetime.date,
    parts: bool,
) -> str | None:
    try:
        marks = _marks(len(roles) + 1)
        text = _rendered(tokenizer, [*roles, "assistant"], marks, kwargs, date, parts=parts, end=False)
    except FAILURES:
        return None
    pieces = _pieces(text)
    order = [one.turn if isinstance(one, Place) else one for one in pieces]
    question, answer = len(roles) - 1, len(roles)
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
