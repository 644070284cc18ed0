"""Options that travel together: how a question is put, and how examples are read.

Each is a frozen pydantic model, passed by the same keyword everywhere (``question``, ``reading``) and found under the same
name in a configuration. Options that are not set are left to the judge; within a benchmark, to the run.
"""

from __future__ import annotations

from typing import Annotated, Literal, TypeAlias

from pydantic import Field

from arm_lens.judges.template import JudgeTemplate
from arm_lens.registry import OptionsModel

Layout: TypeAlias = Literal["scalar", "ranked"]


class QuestionOptions(OptionsModel):
    """How a question is put to a judge."""

    criterion_text: str = ""
    """The criterion in words, part of every prompt; empty for an unnamed one, to be inferred from examples."""
    layout: Layout = "scalar"
    """``scalar`` asks about one response; ``ranked`` asks which of two is better, in both orders."""
    template: JudgeTemplate | None = None
    """The wording; by default the model's own, or the general one."""
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
