"""NaN and infinity are never a result: what is read from a model is checked, and errors name layer, prompt and cause.

Some models mask tokens that they never predict, so a logit of minus infinity is allowed, but not as the logit of a verdict.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn


class NotFiniteError(ArithmeticError):
    """A model computed a number that is infinite or not a number; the message says where, and the likely cause.

    Attributes:
        row: which of the prompts that were read together; None if it is about no prompt.
    """

    def __init__(self, message: str) -> None:
        super().__init__(message)
        self.row: int | None = None
        self._parts: tuple[str, int | None, str] | None = None

    @classmethod
    def of(cls, what: str, row: int | None, layer: int | None, cause: str) -> NotFiniteError:
        """The error of some numbers.

        Args:
            what: the numbers, in the plural.
            row: of the prompt.
            layer: the first block whose output is not finite; None if it is not known.
            cause: the likely cause and its remedy.
        """
        where = "" if row is None else f" of prompt {row}"
        since = "" if layer is None else f", from the output of layer {layer} on"
        error = cls(f"{what}{where} are NaN or infinite{since}: {cause}")
        error.row, error._parts = row, (what, layer, cause)
        return error

    def renamed(self, row: int) -> NotFiniteError:
        """The same error of a prompt with another number."""
        if self._parts is None:
            return self
        what, layer, cause = self._parts
        return self.of(what, row, layer, cause)


@contextlib.contextmanager
def naming_prompts(indices: Sequence[int]) -> Iterator[None]:
    """Within, errors name prompts by these indices; otherwise by their place among the prompts that are read together."""
    try:
        yield
    except NotFiniteError as error:
        if error.row is None:
            raise
        raise error.renamed(indices[error.row]) from None


@contextlib.contextmanager
def naming_examples(names: Sequence[str]) -> Iterator[None]:
    """Within, errors also name the example of a prompt, by its number among those that are read."""
    try:
        yield
    except NotFiniteError as error:
        if error.row is None:
            raise
        raise NotFiniteError(f"{names[error.row]}: {error}") from None


def has_maximum(logits: Float[Tensor, "*shape vocab"]) -> Bool[Tensor, "*shape"]:
    """Whether logits contain neither NaN nor plus infinity, and at least one that is not minus infinity."""
    return logits.amax(dim=-1).isfinite()


def cause_in(dtype: torch.dtype) -> str:
    """Why a model's numbers may be infinite, and what to do about it."""
    if dtype == torch.float16:
        return "float16 overflows beyond 65504; use bfloat16 or float32 (dtype=torch.float32)"
    kind = str(dtype).removeprefix("torch.")
    return f"in {kind} that is no overflow of float16: check the model's weights for NaN"


def first_not_finite(blocks: Sequence[nn.Module], run: Callable[[], object], row: int, position: int) -> int | None:
    """The first block whose output at a token is not finite while a function runs a pass; None if all are."""
    found: list[int] = []

    def noting(number: int) -> Callable[[nn.Module, Any, Any], None]:
        def note(_: nn.Module, __: Any, output: Any) -> None:
            stream = output[0] if isinstance(output, tuple) else output
            if isinstance(stream, Tensor) and not bool(stream[row, position].isfinite().all()):
                found.append(number)

        return note

    with contextlib.ExitStack() as handles:
        for number, block in enumerate(blocks):
            handles.enter_context(block.register_forward_hook(noting(number)))
        run()
    return min(found, default=None)
