"""What travels together: how a question is put, and how examples are read.

Each is a frozen pydantic model, taken by the same keyword wherever it is taken (``question``, ``reading``), and reached
under the same name from a configuration. What is not said is left to the judge; within a benchmark, to the run.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, ClassVar, Literal, TypeAlias

from pydantic import ConfigDict, Field

from arm_lens.judges.template import JudgeTemplate
from arm_lens.registry import OptionsModel

Layout: TypeAlias = Literal["scalar", "ranked"]


class QuestionOptions(OptionsModel):
    """How a judge is asked."""

    criterion_text: str = ""
    """The criterion in words, put into every prompt; empty for an unnamed one, to be inferred from examples."""
    layout: Layout = "scalar"
    """``scalar`` asks about one response; ``ranked`` asks which of two is better, in both orders."""
    template: JudgeTemplate | None = None
    """The wording; by default the model's own, or the general one."""
    batch_size: Annotated[int, Field(ge=1)] = 16
    """Prompts per forward pass."""


@dataclass(frozen=True, kw_only=True)
class Denoise:
    """Options of the weighted PCA; see `arm_lens.reward.denoising`."""

    explained: float = 0.9
    """The share of each head's second moment that the directions left in hold."""
    weighted: bool = True
    """Weight prompts by the probability of their right verdict; else all alike."""

    __pydantic_config__: ClassVar[ConfigDict] = ConfigDict(extra="forbid")

    def __post_init__(self) -> None:
        if not 0 < self.explained <= 1:
            raise ValueError(f"the share that is explained must lie in (0, 1], not {self.explained}")


class ReadingOptions(OptionsModel):
    """How examples are read."""

    demonstrations: Annotated[int, Field(ge=0)] = 8
    """Demonstrations in each prompt; fewer if there are not that many (other) examples."""
    readings: Annotated[int, Field(ge=1)] = 64
    """Prompts that are read for means, with fresh demonstrations each."""
    folds: int = 2
    """Folds, each of which heads are chosen on with means read from the others; see `arm_lens.reward.fitting`."""
    denoise: Denoise | None = None
    """Write denoised means; by default plain ones."""
    seed: int | None = None
    """Of the folds and the demonstrations; by default that of the fit, or 0."""


def question_options(question: QuestionOptions | str | None) -> QuestionOptions:
    """The options behind what a caller gave for ``question``; a bare string is the criterion in words."""
    if question is None:
        return QuestionOptions()
    return QuestionOptions(criterion_text=question) if isinstance(question, str) else question


def seeds_of(reading: ReadingOptions, seed: int | None) -> tuple[int, int]:
    """The seed of the reading, and that of whatever else is random; either alone stands for both."""
    read = seed if reading.seed is None else reading.seed
    return read or 0, (read if seed is None else seed) or 0
