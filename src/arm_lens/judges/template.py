"""How a model is asked to judge.

A *scalar* question contains one response and asks whether it meets the criterion (Yes or No); a *ranked* question contains
two and asks which meets it better (A or B). Both come from a `JudgeTemplate`, which can be replaced. A chat model is asked
through its tokenizer's chat template, demonstrations being earlier turns of the conversation; a base model gets one text
in which the demonstrations stand before the question, each with its verdict.
"""

from __future__ import annotations

import datetime
import difflib
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any, ClassVar, Literal

from pydantic import ConfigDict, TypeAdapter, ValidationError
from transformers import PreTrainedTokenizerBase

from arm_lens.engine.language_model import ModelLike, describe
from arm_lens.engine.model_info import BUNDLED, bundled_model_path
from arm_lens.engine.tokens import MarkedText
from arm_lens.judges.chat import FIXED_DATE, Turn, chat_text
from arm_lens.preferences import PreferenceFieldError, Prompt, text_of
from arm_lens.storage import parse_json, read_regular

TEMPLATE_FILE = "judge_template.json"
LARGEST_FILE = 2**20
"""Bytes of a template's file."""
SLOTS = {"header": ("criterion",), "scalar": ("prompt", "response"), "ranked": ("prompt", "response_a", "response_b")}
"""What is filled in in each text of a template."""
OPTIONAL = ("prompt",)
ALL_SLOTS = {slot for slots in SLOTS.values() for slot in slots}
_SLOT = re.compile(r"\{(\w+)\}")
NO_RANKED_QUESTION = "this judge template has no ranked question: its model judges one response at a time"


@dataclass(frozen=True, kw_only=True)
class JudgeTemplate:
    """The wording of the question that a judge is asked.

    ``{criterion}``, ``{prompt}``, ``{response}``, ``{response_a}`` and ``{response_b}`` are filled in. The default asks
    the question of the paper (arXiv 2507.01368): "Does this response meet the specified criteria?" A template for texts
    that have no prompt, such as texts that are classified, needs no ``{prompt}``; it refuses those that have one. Other
    words in braces are text, unless they look like a misspelt place.
    """

    header: str = "Criterion: {criterion}\n\n"
    """Once, before everything else; left out if the criterion has no wording."""
    scalar: str = (
        "Prompt:\n{prompt}\n\nResponse:\n{response}\n\n"
        "Does this response meet the specified criteria? Answer Yes or No."
    )
    ranked: str | None = (
        "Prompt:\n{prompt}\n\nResponse A:\n{response_a}\n\nResponse B:\n{response_b}\n\n"
        "Which response meets the specified criteria better? Answer A or B."
    )
    """None for a model that was never trained on two responses side by side."""
    cue: str = "\nAnswer:"
    """What a base model reads between question and verdict."""
    before_verdict: str = " "
    """What stands between cue and verdict in a base model's demonstrations."""
    separator: str = "\n\n"
    """Between a base model's demonstrations."""
    prefill: str = ""
    """What a chat model's answer already begins with when the verdict is due, such as ``"\\n</think>\\n\\n"``."""
    yes: tuple[str, ...] = ("Yes",)
    """Spellings of the verdict that a response meets the criterion; the first is written in demonstrations."""
    no: tuple[str, ...] = ("No",)
    first: tuple[str, ...] = ("A",)
    """Spellings of the verdict that the first of two responses is the better one."""
    second: tuple[str, ...] = ("B",)
    chat: bool | None = None
    """Ask through the tokenizer's chat template; by default, if it has one."""

    __pydantic_config__: ClassVar[ConfigDict] = ConfigDict(extra="forbid")

    def __post_init__(self) -> None:
        for name, slots in SLOTS.items():
            text = getattr(self, name) or ""
            missing = [slot for slot in slots if text and slot not in OPTIONAL and "{" + slot + "}" not in text]
            if missing:
                raise ValueError(f"the template's {name!r} text lacks {{{missing[0]}}}")
            for slot in _SLOT.findall(text):  # others than misspelt ones are text, as in LaTeX
                if slot not in slots and (slot in ALL_SLOTS or difflib.get_close_matches(slot, slots, cutoff=0.75)):
                    places = " and ".join("{" + one + "}" for one in slots)
                    raise ValueError(
                        f"the template's {name!r} text has {{{slot}}}, and only {places} are filled in there"
                    )
        for name in ("yes", "no", "first", "second"):
            if isinstance(getattr(self, name), str):  # whose letters are no spellings
                raise ValueError(f"the template's {name!r} is a list of spellings, not {getattr(self, name)!r}")
            object.__setattr__(self, name, tuple(getattr(self, name)))
            if not getattr(self, name):
                raise ValueError(f"the template has no spelling for the verdict {name!r}")

    def takes_prompt(self, layout: Literal["scalar", "ranked"] = "scalar") -> bool:
        """Whether the question of a layout has a place for the prompt."""
        return "{prompt}" in (self.scalar if layout == "scalar" else self.ranked or "")

    def question(self, prompt: Prompt, response: Prompt) -> MarkedText:
        """The scalar question about one response; without a prompt, its paragraph for the prompt is left out.

        Raises:
            PreferenceFieldError: if prompt or response cannot be read as text, or there is no place for the prompt.
        """
        text = checked_prompt(prompt, self.takes_prompt())
        return _fill(_about(self.scalar, text), prompt=text, response=text_of(response, "response"))

    def ranked_question(self, prompt: Prompt, response_a: Prompt, response_b: Prompt) -> MarkedText:
        """The ranked question about two responses; without a prompt, its paragraph for the prompt is left out.

        Raises:
            ValueError: if the template has none.
            PreferenceFieldError: if a text cannot be read as such, or there is no place for the prompt.
        """
        if self.ranked is None:
            raise ValueError(NO_RANKED_QUESTION)
        given = {"response_a": response_a, "response_b": response_b}
        texts = {field: text_of(text, field) for field, text in given.items()}
        text = checked_prompt(prompt, self.takes_prompt("ranked"))
        return _fill(_about(self.ranked, text), prompt=text, **texts)

    def is_chat(self, tokenizer: PreTrainedTokenizerBase) -> bool:
        """Whether questions to this tokenizer's model go through its chat template."""
        has_template = getattr(tokenizer, "chat_template", None) is not None
        if self.chat and not has_template:
            raise ValueError("the template asks for a chat model, but the tokenizer has no chat template")
        return has_template if self.chat is None else self.chat

    def render(
        self,
        tokenizer: PreTrainedTokenizerBase,
        question: str,
        *,
        examples: Sequence[tuple[str, str]] = (),
        criterion: str = "",
        system: str = "",
        chat_template_kwargs: Mapping[str, Any] = MappingProxyType({}),
        date: datetime.date = FIXED_DATE,
    ) -> MarkedText:
        """The whole text that the model reads; its next token is the verdict.

        The tokenizer decides between the chat and the base form. ``examples`` are questions with their verdicts, which stand
        before the question in this order. An empty ``criterion`` is to be inferred from examples or injected means. A base
        model reads a ``system`` message as the first paragraph. A question that is a plain ``str`` counts as given as a
        whole.

        Raises:
            ChatTemplateError: if the chat template leaves out any of this, or does not end where a verdict is due.
            ValueError: if there is a criterion, but the template's header has no place for it.
        """
        if self.is_chat(tokenizer):
            turns = self._turns(question, examples, criterion, system)
            return chat_text(tokenizer, turns, kwargs=chat_template_kwargs, date=date, prefill=self.prefill)
        pieces = [MarkedText.of("system", system), "\n\n"] if system else []
        pieces.append(self._header(criterion))
        for text, verdict in examples:
            pieces += [_marked(text), self.cue, self.before_verdict, verdict, self.separator]
        return MarkedText.joined([*pieces, _marked(question), self.cue])

    def messages(
        self, question: str, *, examples: Sequence[tuple[str, str]] = (), criterion: str = "", system: str = ""
    ) -> list[dict[str, str]]:
        """The conversation that asks a chat model: each demonstration a turn, the criterion in front of the first."""
        return [{"role": one.role, "content": one.text} for one in self._turns(question, examples, criterion, system)]

    def _turns(self, question: str, examples: Sequence[tuple[str, str]], criterion: str, system: str) -> list[Turn]:
        texts = [_marked(text) for text in (*(text for text, _ in examples), question)]
        texts[0] = self._header(criterion) + texts[0]
        turns = [Turn("system", MarkedText.of("system", system), "the system message")] if system else []
        for number, (text, (_, verdict)) in enumerate(zip(texts, examples, strict=False), start=1):
            turns.append(Turn("user", text, f"demonstration {number}"))
            turns.append(Turn("assistant", verdict, f"the verdict of demonstration {number}"))
        return [*turns, Turn("user", texts[-1], "the question")]

    def _header(self, criterion: str) -> MarkedText:
        if criterion and not self.header:
            raise ValueError("there is a criterion text, but the judge template's header, where it belongs, is empty")
        return _fill(self.header, criterion=criterion) if criterion else MarkedText("")

    def to_dict(self) -> dict[str, Any]:
        """The fields, for JSON."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> JudgeTemplate:
        """From JSON, which has lists for tuples; a ValueError names what is no field, or not of its type."""
        if not isinstance(values, Mapping):
            raise ValueError("a judge template is an object of its fields")
        try:
            return TypeAdapter(cls).validate_python(dict(values))
        except ValidationError as error:
            first = error.errors(include_url=False)[0]
            place, reason = ".".join(map(str, first["loc"])), first["msg"].removeprefix("Value error, ")
            raise ValueError(f"the template's {place!r}: {reason}" if place else reason) from None

    @classmethod
    def read(cls, path: str | Path) -> JudgeTemplate:
        """From a JSON file; a ValueError names it and what is wrong."""
        content = read_regular(path, most=LARGEST_FILE)
        try:
            values = parse_json(content)
        except ValueError as error:
            raise ValueError(f"{path} is not valid JSON: {error}") from error
        try:
            return cls.from_dict(values)
        except ValueError as error:
            raise ValueError(f"{path}: {error}") from error


def checked_prompt(prompt: Prompt, has_place: bool) -> str:
    """The prompt as text; a PreferenceFieldError if it has one, but the question has no place for it."""
    text = text_of(prompt, "prompt")
    if text.strip() and not has_place:
        raise PreferenceFieldError(
            "prompt", "has no place in the judge template; write {prompt} into its question, or pass '' for each prompt"
        )
    return text


def _about(text: str, prompt: str) -> str:
    """The question's text without paragraphs that are for the prompt alone, if there is none."""
    paragraphs = text.split("\n\n")
    return text if prompt else "\n\n".join(one for one in paragraphs if "{prompt}" not in one or "{response" in one)


def _fill(text: str, **values: str) -> MarkedText:
    """Put values into {slots}; braces inside the values, and any others in the text, stay as they are."""
    pieces = _SLOT.split(text)  # every second piece is the name of a slot
    return MarkedText.joined(
        piece if number % 2 == 0 else MarkedText.of(piece, values[piece]) if piece in values else "{" + piece + "}"
        for number, piece in enumerate(pieces)
    )


def _marked(text: str) -> MarkedText:
    return text if isinstance(text, MarkedText) else MarkedText.of("question", text)


def default_template(model: ModelLike) -> JudgeTemplate:
    """The judge template in a model's folder (``judge_template.json``), else the general one."""
    name = describe(model).name
    folder = bundled_model_path(name) if name in BUNDLED else Path(name)
    if name and (folder / TEMPLATE_FILE).is_file():
        return JudgeTemplate.read(folder / TEMPLATE_FILE)
    return JudgeTemplate()
