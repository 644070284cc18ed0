"""Options that travel together: how a question is put, and how examples are read.

Each is a frozen pydantic model, passed by the same keyword everywhere (``question``, ``reading``) and found under the same
name in a configuration. Options that are not set are left to the judge; within a benchmark, to the run.
"""

from __future__ import annotations

import datetime
import json
from collections.abc import Mapping
from typing import Annotated, Any, Literal, TypeAlias

from pydantic import AfterValidator, Field

from arm_lens.judges.chat import FIXED_DATE
from arm_lens.judges.template import JudgeTemplate
from arm_lens.registry import OptionsModel

Layout: TypeAlias = Literal["scalar", "ranked"]
TooLong: TypeAlias = Literal["raise", "skip", "clip"]


class Settings(dict[str, Any]):
    """Settings by name that do not change, so that options with them have a hash."""

    def __hash__(self) -> int:  # type: ignore[override]
        return hash(json.dumps(self, sort_keys=True, default=repr))


def _settings(values: Mapping[str, Any]) -> Settings:
    for name in ("tokenize", "add_generation_prompt", "continue_final_message", "return_tensors", "return_dict"):
        if name in values:
            raise ValueError(
                f"{name!r} is decided by the judge; chat_template_kwargs are variables of the chat template"
            )
    return Settings(values)


class QuestionOptions(OptionsModel):
    """How a question is put to a judge."""

    criterion_text: str = ""
    """The criterion in words, part of every prompt; empty for an unnamed one, to be inferred from examples."""
    layout: Layout = "scalar"
    """``scalar`` asks about one response; ``ranked`` asks which of two is better, in both orders."""
    template: JudgeTemplate | None = None
    """The wording; by default the model's own, or the general one."""
    system: str = ""
    """A system message, before everything else. It begins the user's first turn if the chat template has no place for it."""
    chat_template_kwargs: Annotated[Mapping[str, Any], AfterValidator(_settings)] = Settings()
    """Variables of the tokenizer's chat template, such as ``{"enable_thinking": False}``."""
    date: datetime.date = FIXED_DATE
    """The date that a chat template writes, if it writes one: fixed, so that a question is the same text on every day."""
    on_too_long: TooLong = "raise"
    """What becomes of a question that exceeds the model's context. ``raise``: an error, before any pass. ``skip``: no score
    (NaN), with a warning. ``clip``: it is shortened, with a warning; the oldest demonstrations go first, then the beginning
    of the prompt, but never the response, the criterion or the question itself. In a fit, ``skip`` is an error too."""
    batch_size: Annotated[int, Field(ge=1)] = 16
    """Prompts per forward pass."""


class Denoise(OptionsModel):
    """Options of the weighted PCA; see `arm_lens.reward.denoising`."""

    explained: Annotated[float, Field(gt=0, le=1)] = 0.9
    """The share of each head's second moment that the retained directions explain."""
    weighted: bool = True
    """Weight prompts by the probability of their right verdict; else all alike."""


class ReadingOptions(OptionsModel):
    """How examples are read."""

    demonstrations: Annotated[int, Field(ge=0)] = 8
    """Demonstrations in each prompt; fewer if there are not that many (other) examples."""
    readings: Annotated[int, Field(ge=1)] = 64
    """Prompts that are read for means, each with its own random demonstrations."""
    folds: int = 2
    """Folds of the examples: heads are chosen on each with means read from the others (`arm_lens.reward.fitting`)."""
    denoise: Denoise | None = None
    """Write denoised means; by default plain ones."""
    seed: int | None = None
    """The seed of folds and demonstrations; by default that of the fit, or 0."""


def question_options(question: QuestionOptions | str | None) -> QuestionOptions:
    """Options from the argument ``question``; a bare string is the criterion in words."""
    if question is None:
        return QuestionOptions()
    return QuestionOptions(criterion_text=question) if isinstance(question, str) else question


def seeds_of(reading: ReadingOptions, seed: int | None) -> tuple[int, int]:
    """The seed of the reading, and that of whatever else is random; either alone stands for both."""
    read = seed if reading.seed is None else reading.seed
    return read or 0, (read if seed is None else seed) or 0
