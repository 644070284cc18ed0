"""A way of choosing heads: options, and a search that goes by them.

A *selector* is a frozen pydantic model of its options. It is handed an objective, which knows how well the model judges
labelled examples while a head mask is written, and gives a `Selection`. Its ``kind`` is what it is called in a
configuration, ``{"kind": "reinforce", "steps": 50}``, and in the record of a reward model.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Annotated, Any, ClassVar

from pydantic import BaseModel, BeforeValidator, ConfigDict, SerializeAsAny

from arm_lens.engine.sharing import remembered
from arm_lens.registry import SELECTORS
from arm_lens.selection.outcome import Selection


class Selector(BaseModel, ABC):
    """A way of choosing heads."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    kind: str
    """What it is called."""
    random: ClassVar[bool] = False
    """Whether it depends on a seed."""

    def select(self, objective: Any, *, seed: int = 0, progress: bool = False) -> Selection:
        """Choose heads.

        Within `arm_lens.engine.sharing.shared_readings` the same search is made once: one with equal options and seed on an
        objective of equal content.

        Args:
            objective: an `Objective`; for a search by gradient a `DifferentiableObjective`.
            seed: the same seed gives the same heads; ignored where nothing is random.
            progress: show a progress bar.
        """
        seed = seed if self.random else 0
        content = getattr(objective, "content", None)
        if content is None:  # another's objective, of which it is not known what it depends on
            return self._search(objective, seed, progress)
        return remembered(("search", self, content, seed), lambda: self._search(objective, seed, progress))

    @abstractmethod
    def _search(self, objective: Any, seed: int, progress: bool) -> Selection:
        """Choose heads, whatever was chosen before."""


def selector_of(choice: Selector | Mapping[str, Any] | str) -> Selector:
    """A selector from what a configuration says.

    Args:
        choice: a selector; the name of a kind or preset (``"published"``); or options with such a name as ``kind``.

    Raises:
        ValueError: if there is no selector of that name, or it does not have those options; the message lists what there is.
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
"""A field of options that holds a selector, given in any way that `selector_of` takes."""
