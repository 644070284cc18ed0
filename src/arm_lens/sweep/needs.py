r"""What a fit of an Activation Reward Model needs on a model that nobody has loaded: memory and time, from its shape alone.

*Memory*: the weights; the means, one vector per head; the keys and values of the questions, which the replay of masks needs
at once; and what passes take while they run, as the engine estimates before it cuts them to a budget
(`arm_lens.engine.memory.Footprint`, high estimates).

*Time*: the multiplications of all passes, two operations for each weight and token, and
:math:`4\, L\, H\, d_{head}` for each pair of tokens in attention, divided by the operations per second that a device really
does. A search tries each mask on each question by one more token after the stored ones.

These are computed, not measured, except where ``tests/sweep/test_needs.py`` compares them: parameters, bytes of weights and
means, and the operations of a pass are exact for blocks like Llama's.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass

import pandas as pd

from arm_lens.engine.memory import Footprint

GIB = 2**30
QUANTISED = 4.5 / 8
"""Bytes of a weight in blocks of 64 with 4 bits each and a scale in float32; embeddings are left in half precision."""
POSITIONS = 4096
"""Masks times questions in one pass on an accelerator (`arm_lens.engine.memory.POSITIONS_PER_PASS`)."""


@dataclass(frozen=True, kw_only=True)
class Shape:
    """A model with blocks like Llama's: grouped queries, three matrices in each feed-forward layer, no biases."""

    n_layers: int
    n_heads: int
    n_key_value_heads: int
    d_head: int
    d_model: int
    d_mlp: int
    d_vocab: int
    tied: bool = False
    """Whether input and output embeddings are the same tensor."""

    @property
    def block_weights(self) -> int:
        """Weights in all matrices of the blocks."""
        attention = 2 * self.d_model * self.d_head * (self.n_heads + self.n_key_value_heads)
        return self.n_layers * (attention + 3 * self.d_model * self.d_mlp)

    @property
    def other_weights(self) -> int:
        """Embeddings and norms."""
        return self.d_vocab * self.d_model * (1 if self.tied else 2) + (2 * self.n_layers + 1) * self.d_model

    @property
    def parameters(self) -> int:
        """All weights."""
        return self.block_weights + self.other_weights

    def operations(self, tokens: int, before: int = 0, logits: int = 1) -> int:
        """Floating-point operations of one pass over ``tokens`` tokens after ``before`` others, with ``logits`` outputs.

        Attention counts every pair of tokens, also those that are masked out.
        """
        pairs = 4 * self.n_layers * self.n_heads * self.d_head * tokens * (tokens + before)
        return 2 * self.block_weights * tokens + pairs + 2 * self.d_model * self.d_vocab * logits


LARGE = {
    "7 B (Qwen2.5-7B)": Shape(
        n_layers=28, n_heads=28, n_key_value_heads=4, d_head=128, d_model=3584, d_mlp=18_944, d_vocab=152_064
    ),
    "70 B (Llama-3.1-70B)": Shape(
        n_layers=80, n_heads=64, n_key_value_heads=8, d_head=128, d_model=8192, d_mlp=28_672, d_vocab=128_256
    ),
    "400 B (Llama-3.1-405B)": Shape(
        n_layers=126, n_heads=128, n_key_value_heads=8, d_head=128, d_model=16_384, d_mlp=53_248, d_vocab=128_256
    ),
}
"""Dense models of three sizes."""


@dataclass(frozen=True, kw_only=True)
class Fit:
    """How a reward model is fitted; the numbers of a fit's defaults, with texts of medium length."""

    questions: int = 40
    """Responses of the examples that the search judges."""
    question_tokens: int = 400
    readings: int = 64
    """Prompts that are read for the means."""
    reading_tokens: int = 3200
    """Of each: eight demonstrations."""
    steps: int = 110
    masks: int = 16
    """Masks per step."""
    warm_start: bool = True
    """Whether each head is first tried alone."""

    def tried(self, shape: Shape) -> int:
        """Masks that are tried on every question."""
        return self.steps * self.masks + (shape.n_layers * shape.n_heads if self.warm_start else 0)


@dataclass(frozen=True, kw_only=True)
class Needs:
    """Bytes and operations of one fit."""

    parameters: int
    weights: int
    """In 16 bits."""
    weights_4bit: int
    means: int
    """Of one reward model, in float32."""
    stored: int
    """Keys and values of all questions, in 16 bits."""
    reading: int
    """What one pass over a prompt for the means takes while it runs."""
    trying: int
    """What one pass over as many masks as a pass has on an accelerator takes while it runs."""
    operations_reading: int
    operations_search: int

    def seconds(self, per_second: float) -> float:
        """Time of the passes at so many floating-point operations per second (what a device does, not what it promises)."""
        return (self.operations_reading + self.operations_search) / per_second


def needs(shape: Shape, fit: Fit | None = None, *, itemsize: int = 2) -> Needs:
    """What a fit needs on a model of a shape whose weights and activations have ``itemsize`` bytes per number."""
    fit = fit or Fit()
    footprint = Footprint(shape, itemsize, POSITIONS)
    read = fit.readings * shape.operations(fit.reading_tokens) + fit.questions * shape.operations(fit.question_tokens)
    search = fit.tried(shape) * fit.questions * shape.operations(1, fit.question_tokens)
    at_once = min(fit.masks, POSITIONS)
    rows = max(1, min(fit.questions, POSITIONS // at_once))
    return Needs(
        parameters=shape.parameters,
        weights=shape.parameters * itemsize,
        weights_4bit=round(shape.block_weights * QUANTISED) + shape.other_weights * itemsize,
        means=4 * shape.n_layers * shape.n_heads * shape.d_head,
        stored=fit.questions * footprint.stored(fit.question_tokens),
        reading=footprint.reading(fit.reading_tokens) + footprint.stored(fit.reading_tokens),
        trying=rows * footprint.trying(at_once, fit.question_tokens, 2),
        operations_reading=read,
        operations_search=search,
    )


def needs_table(
    shapes: dict[str, Shape] | None = None, fit: Fit | None = None, *, per_second: float = 2e14
) -> pd.DataFrame:
    """`needs` of several shapes, a row each: parameters in billions, memory in GiB, minutes at ``per_second`` operations."""
    rows = []
    for name, shape in (LARGE if shapes is None else shapes).items():
        found = needs(shape, fit)
        values = asdict(found)
        memory = {key: values[key] / GIB for key in ("weights", "weights_4bit", "means", "stored", "reading", "trying")}
        rows.append(
            {"model": name, "billions": found.parameters / 1e9, **memory, "minutes": found.seconds(per_second) / 60}
        )
    return pd.DataFrame(rows)
