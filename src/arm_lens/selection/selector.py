"""Selectors: options, and a search for heads with these options.

A *selector* is a frozen pydantic model of its options. From an objective, which measures how well the model judges
labelled examples while a head mask is written, it makes a `Selection`. Its ``kind`` is its name in a configuration,
``{"kind": "reinforce", "steps": 50}``, and in the record of a reward model.
"""

from __future__ import annotations

import inspect
import math
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import replace
from typing import Annotated, Any, ClassVar

import torch
from jaxtyping import Bool
from pydantic import BaseModel, BeforeValidator, ConfigDict, SerializeAsAny
from torch import Tensor

from arm_lens.engine.sharing import remembered
from arm_lens.registry import SELECTORS, documented
from arm_lens.selection.outcome import FiniteObjective, KnownRewards, Selection

PENALTY, PENALTY_OF_ALL = 0.01, 0.48
"""The head penalty by default, and that of all heads together at most."""
INITIAL_PROBABILITY, INITIAL_HEADS = 0.27, 13
"""The first probability of every head by default, and the number of heads that are likely at first at most."""


class Selector(BaseModel, ABC):
    """A way of choosing heads."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True, allow_inf_nan=False)
    kind: str
    """Its name."""
    random: ClassVar[bool] = False
    """Whether it depends on a seed."""

    @classmethod
    def __pydantic_init_subclass__(cls, **kwargs: Any) -> None:
        cls.__doc__ = documented(inspect.getdoc(cls) or "", cls.model_fields)

    def select(self, objective: Any, *, seed: int = 0, progress: bool = False) -> Selection:
        """Choose heads.

        Within `arm_lens.engine.sharing.shared_readings` the same search is made once: one with equal options and seed on an
        objective of equal content.

        A search by gradient needs a `DifferentiableObjective`, any other an `Objective`. The same seed gives the same heads.

        Raises:
            NotFiniteError: if a reward is NaN or infinite.
        """
        seed = seed if self.random else 0
        known = KnownRewards(objective)
        options = self.resolved(known.shape)

        def search() -> Selection:
            found = options._search(FiniteObjective(known), seed, progress)
            return replace(found, passes=known.passes)

        if known.content is None:  # it is not known what another package's objective depends on
            return search()
        return remembered(("search", options, known.content, seed), search)

    def resolved(self, shape: tuple[int, int]) -> Selector:
        """The same options with numbers in place of the defaults that depend on the model.

        Args:
            shape: layers, and heads per layer.
        """
        return self

    @abstractmethod
    def _search(self, objective: Any, seed: int, progress: bool) -> Selection: ...


class Search(Selector):
    """A selector that searches: what its searches have in common."""

    head_penalty: float | None = None
    """Subtracted from the reward of a set for each head in it; by default 0.01, or on models of more than 48 heads as much
    less as makes all heads together cost 0.48."""
    layers: tuple[int, ...] | None = None
    """Eligible layers; None for all."""

    def eligible(self, shape: tuple[int, int]) -> Bool[Tensor, "layer head"]:
        """The heads that may be chosen.

        Raises:
            ValueError: if a layer lies outside the model, or there is none.
        """
        n_layers = shape[0]
        if self.layers is None:
            return torch.ones(shape, dtype=torch.bool)
        if not self.layers or not all(0 <= layer < n_layers for layer in self.layers):
            raise ValueError(f"eligible layers {self.layers} do not fit a model of {n_layers} layers")
        eligible = torch.zeros(shape, dtype=torch.bool)
        eligible[list(self.layers)] = True
        return eligible

    def penalty(self, shape: tuple[int, int]) -> float:
        """The head penalty on a model with this many layers, and heads per layer."""
        if self.head_penalty is not None:
            return self.head_penalty
        n_layers, n_heads = shape
        return min(PENALTY, PENALTY_OF_ALL / (n_layers * n_heads))

    def first_logit(self, shape: tuple[int, int]) -> float:
        """The logit that every head starts with by default."""
        probability = min(INITIAL_PROBABILITY, INITIAL_HEADS / max(1, int(self.eligible(shape).sum())))
        return math.log(probability / (1 - probability))

    def resolved(self, shape: tuple[int, int]) -> Search:
        """The same options with numbers in place of the defaults that depend on the model."""
        return self.model_copy(update={"head_penalty": self.penalty(shape)})


def selector_of(choice: Selector | Mapping[str, Any] | str) -> Selector:
    """A selector from a configuration.

    It may be a selector; the name of a kind or preset (``"published"``); or options with such a name as ``kind``.

    Raises:
        ValueError: if the name or an option is unknown; the message lists the known ones.
    """
    if isinstance(choice, Selector):
        return choice
    if isinstance(choice, str):
        choice = {"kind": choice}
    if not isinstance(choice, Mapping) or not isinstance(choice.get("kind"), str):
        raise ValueError(
            f"a selector is given by its name, or by options with a 'kind', which is one of {', '.join(SELECTORS)}; "
            f"not as {choice!r}"
        )
    found: Selector = SELECTORS[choice["kind"]].parse({name: value for name, value in choice.items() if name != "kind"})
    return found


SelectorChoice = Annotated[SerializeAsAny[Selector], BeforeValidator(selector_of)]
"""The type of an option that is a selector, in any form that `selector_of` accepts."""
