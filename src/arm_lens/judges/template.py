"""How a model is asked to judge.

A *scalar* question contains one response and asks whether it meets the criterion (Yes or No); a *ranked* question contains
two and asks which meets it better (A or B). Both come from a `JudgeTemplate`, which can be replaced. A chat model is asked
through its tokenizer's chat template, demonstrations being earlier turns of the conversation; a base model gets one text
in which the demonstrations stand before the question, each with its verdict.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, ClassVar

from pydantic import ConfigDict
from transformers import PreTrainedTokenizerBase

from arm_lens.engine.language_model import ModelLike, describe
from arm_lens.engine.protocol import BUNDLED_NAME, bundled_model_path
from arm_lens.preferences import Prompt, text_of

TEMPLATE_FILE = "judge_template.json"
NO_RANKED_QUESTION = "this judge template has no ranked question: its model judges one response at a time"


@dataclass(frozen=True, kw_only=True)
class JudgeTemplate:
    """The wording of the question that a judge is asked.

    ``{criterion}``, ``{prompt}``, ``{response}``, ``{response_a}`` and ``{response_b}`` are filled in. The default asks
    the question of the paper (arXiv 2507.01368): "Does this response meet the specified criteria?"
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
        for name, slots in (
            ("header", ("criterion",)),
            ("scalar", ("prompt", "response")),
            ("ranked", ("prompt", "response_a", "response_b")),
        ):
            text = getattr(self, name)
            missing = [slot for slot in slots if text and "{" + slot + "}" not in text]
            if missing:
                raise ValueError(f"the template's {name!r} text lacks {{{missing[0]}}}")
        for name in ("yes", "no", "first", "second"):
            object.__setattr__(self, name, tuple(getattr(self, name)))
            if not getattr(self, name):
                raise ValueError(f"the template has no spelling for the verdict {name!r}")

    def question(self, prompt: Prompt, response: Prompt) -> str:
        """The scalar question about one response."""
        return _fill(self.scalar, prompt=text_of(prompt), response=text_of(response))

    def ranked_question(self, prompt: Prompt, response_a: Prompt, response_b: Prompt) -> str:
        """The ranked question about two responses.

        Raises:
            ValueError: if the template has none.
        """
        if self.ranked is None:
            raise ValueError(NO_RANKED_QUESTION)
        texts = {"prompt": text_of(prompt), "response_a": text_of(response_a), "response_b": text_of(response_b)}
        return _fill(self.ranked, **texts)

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
    ) -> str:
        """The whole text that the model reads; its next token is the verdict.

        The tokenizer decides between the chat and the base form. ``examples`` are questions with their verdicts, which stand
        before the question in this order. An empty ``criterion`` is to be inferred from examples or injected means.
        """
        if not self.is_chat(tokenizer):
            demonstrations = [question + self.cue + self.before_verdict + verdict for question, verdict in examples]
            return self._header(criterion) + self.separator.join([*demonstrations, question + self.cue])
        turns = self.messages(question, examples=examples, criterion=criterion)
        return str(tokenizer.apply_chat_template(turns, tokenize=False, add_generation_prompt=True))

    def messages(
        self, question: str, *, examples: Sequence[tuple[str, str]] = (), criterion: str = ""
    ) -> list[dict[str, str]]:
        """The conversation that asks a chat model: each demonstration a turn, the criterion in front of the first."""
        messages: list[dict[str, str]] = []
        for text, verdict in examples:
            messages += [{"role": "user", "content": text}, {"role": "assistant", "content": verdict}]
        messages.append({"role": "user", "content": question})
        messages[0]["content"] = self._header(criterion) + messages[0]["content"]
        return messages

    def _header(self, criterion: str) -> str:
        return _fill(self.header, criterion=criterion) if criterion else ""

    def to_dict(self) -> dict[str, Any]:
        """The fields, for JSON."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> JudgeTemplate:
        """From JSON, which has lists for tuples."""
        fields: Any = {name: tuple(one) if isinstance(one, list) else one for name, one in values.items()}
        return cls(**fields)


def _fill(text: str, **values: str) -> str:
    """Put values into {slots}; braces inside the values, and any others in the text, stay as they are."""
    return re.sub(r"\{(\w+)\}", lambda slot: values.get(slot[1], slot[0]), text)


def default_template(model: ModelLike) -> JudgeTemplate:
    """The judge template in a model's folder (``judge_template.json``), else the general one."""
    name = describe(model).name
    folder = bundled_model_path() if name == BUNDLED_NAME else Path(name)
    if (folder / TEMPLATE_FILE).is_file():
        return JudgeTemplate.from_dict(json.loads((folder / TEMPLATE_FILE).read_text(encoding="utf-8")))
    return JudgeTemplate()
