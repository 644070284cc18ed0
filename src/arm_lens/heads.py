"""The vocabulary everything else speaks: a head, a set of heads, a score per head.

An attention head is named by its layer and its index within the layer, ``L3H5``. A set of heads is the same thing as a
boolean mask ``[layer, head]``; it remembers the size of the model it belongs to, so that sets of different models are
never compared by accident.

Searches, reward models and measures of heads are objects; figures and comparisons are made from tables. The second half of
this module makes tables of objects: `heads_frame`, `history_frame`, `trajectory_frame`, `attributions_frame`, and by name
`head_sets` and `head_scores`. Each takes one object, several by name (of a criterion, a selector, ...), several repetitions
of each name, or a table, which is returned unchanged.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol, TypeAlias, TypeVar, runtime_checkable

import numpy as np
import pandas as pd
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from arm_lens import display
from arm_lens.display import counted, head_name, size
from arm_lens.frames import HEAD_SCORES, HEADS, checked

PROBABILITIES = ("selection probability", "gate")
"""Scores that say how likely, or how far, a search writes at a head."""
ONE_SET = HEADS.needing("layer", "head", "selected", key=("layer", "head"))


class Head(NamedTuple):
    """One attention head."""

    layer: int
    head: int

    def __str__(self) -> str:
        return head_name(*self)


@dataclass(frozen=True)
class HeadSet:
    """A set of heads of a model with ``n_layers`` layers of ``n_heads`` heads.

    Raises:
        ValueError: if a head lies outside the model.
    """

    n_layers: int
    n_heads: int
    heads: frozenset[Head]

    def __post_init__(self) -> None:
        object.__setattr__(self, "heads", frozenset(Head(*head) for head in self.heads))
        for head in self.heads:
            if not (0 <= head.layer < self.n_layers and 0 <= head.head < self.n_heads):
                raise ValueError(f"{head} is outside a model of {size(self.n_layers, self.n_heads)}")

    @classmethod
    def of(cls, n_layers: int, n_heads: int, heads: Iterable[tuple[int, int]]) -> HeadSet:
        """The set of the given (layer, head) pairs."""
        return cls(n_layers, n_heads, frozenset(Head(*head) for head in heads))

    @classmethod
    def from_mask(cls, mask: Bool[Tensor, "layer head"]) -> HeadSet:
        """The heads at which ``mask`` is true."""
        return cls.of(mask.shape[0], mask.shape[1], map(tuple, mask.nonzero().tolist()))

    @classmethod
    def all(cls, n_layers: int, n_heads: int) -> HeadSet:
        """Every head of the model."""
        return cls.from_mask(torch.ones(n_layers, n_heads, dtype=torch.bool))

    @classmethod
    def none(cls, n_layers: int, n_heads: int) -> HeadSet:
        """No head."""
        return cls(n_layers, n_heads, frozenset())

    @property
    def mask(self) -> Bool[Tensor, "layer head"]:
        """True at the heads of the set."""
        mask = torch.zeros(self.n_layers, self.n_heads, dtype=torch.bool)
        for layer, head in self.heads:
            mask[layer, head] = True
        return mask

    def random_like(self, generator: torch.Generator) -> HeadSet:
        """A uniformly random set with the same number of heads in every layer: the control for "which heads"."""
        mask = torch.zeros_like(self.mask)
        for layer, count in enumerate(self.mask.sum(dim=1).tolist()):
            mask[layer, torch.randperm(self.n_heads, generator=generator)[:count]] = True
        return HeadSet.from_mask(mask)

    def jaccard(self, other: HeadSet) -> float:
        """|A and B| / |A or B|, in [0, 1]; two empty sets are equal, hence 1."""
        union = self | other
        return len(self & other) / len(union) if len(union) else 1.0

    def _combined(
        self, other: HeadSet, heads: Callable[[frozenset[Head], frozenset[Head]], frozenset[Head]]
    ) -> HeadSet:
        if (self.n_layers, self.n_heads) != (other.n_layers, other.n_heads):
            sizes = f"{size(self.n_layers, self.n_heads)} and {size(other.n_layers, other.n_heads)}"
            raise ValueError(f"head sets of different models: {sizes}")
        return HeadSet(self.n_layers, self.n_heads, heads(self.heads, other.heads))

    def __or__(self, other: HeadSet) -> HeadSet:
        return self._combined(other, frozenset.union)

    def __and__(self, other: HeadSet) -> HeadSet:
        return self._combined(other, frozenset.intersection)

    def __sub__(self, other: HeadSet) -> HeadSet:
        return self._combined(other, frozenset.difference)

    def __len__(self) -> int:
        return len(self.heads)

    def __iter__(self) -> Iterator[Head]:
        return iter(sorted(self.heads))

    def __contains__(self, head: object) -> bool:
        return head in self.heads

    def __str__(self) -> str:
        return "{" + ", ".join(map(str, self)) + "}"

    def __repr__(self) -> str:
        return f"HeadSet({counted(len(self), 'head')} {display.listed(self)} in {size(self.n_layers, self.n_heads)})"

    def _repr_html_(self) -> str:
        title = f"{len(self)} of {counted(self.n_layers * self.n_heads, 'head')}"
        return display.card(title, {}, display.set_map(self.mask), display.small_print(display.listed(self, most=40)))

    def to_list(self) -> list[list[int]]:
        """[[layer, head], ...] in order, for JSON."""
        return [list(head) for head in self]

    def frame(self) -> pd.DataFrame:
        """Tidy table with columns ``layer``, ``head``, ``selected``: a row for every head of the model, chosen or not."""
        return _by_head(self.n_layers, self.n_heads).assign(selected=self.mask.flatten().numpy())

    @classmethod
    def from_frame(cls, frame: pd.DataFrame) -> HeadSet:
        """The set in a table like that of `frame`; the size of the model is that of the table.

        Raises:
            ValueError: naming a missing column, or the head that has two rows, or is neither selected nor not; or saying
                that some head has no row.
        """
        frame = checked(frame, ONE_SET)
        heads = [(int(layer), int(head)) for layer, head in frame[["layer", "head"]].to_numpy()]
        n_layers, n_heads = (max(index) + 1 for index in zip(*heads, strict=True))
        if len(heads) < n_layers * n_heads:
            raise ValueError(
                f"there are {len(heads)} rows for the {n_layers * n_heads} heads of a model of "
                f"{size(n_layers, n_heads)}; give a row for every head, chosen or not"
            )
        return cls.of(n_layers, n_heads, itertools.compress(heads, frame["selected"]))


@dataclass(frozen=True, eq=False)
class HeadScores:
    """One number per head."""

    name: str
    """What is measured, e.g. ``selection probability``."""
    values: Float[Tensor, "layer head"]

    def top(self, k: int) -> HeadSet:
        """The ``k`` heads with the highest scores; of equal ones, those in earlier layers. Not a number is no score.

        Raises:
            ValueError: if there are fewer heads with a score.
        """
        n_layers, n_heads = self.values.shape
        unknown = self.values.isnan()
        scored = int((~unknown).sum())
        if not 0 <= k <= scored:
            raise ValueError(f"cannot take the top {k} of {scored} heads")
        values = self.values.masked_fill(unknown, -torch.inf).flatten()
        order = values.sort(descending=True, stable=True).indices[:k]
        return HeadSet.of(n_layers, n_heads, [divmod(index, n_heads) for index in order.tolist()])

    def above(self, threshold: float) -> HeadSet:
        """The heads whose score is greater than ``threshold``."""
        return HeadSet.from_mask(self.values > threshold)

    def frame(self) -> pd.DataFrame:
        """Tidy table with columns ``layer``, ``head``, ``score``."""
        return _by_head(*self.values.shape).assign(score=self.values.detach().cpu().flatten().double().numpy())

    @classmethod
    def from_frame(cls, frame: pd.DataFrame, *, name: str) -> HeadScores:
        """The scores in a table like that of `frame`; heads without a row have no score (NaN).

        Raises:
            ValueError: naming a missing column, or the head that is there twice.
        """
        table = checked(frame, HEAD_SCORES).pivot(index="layer", columns="head", values="score")
        table = table.reindex(index=range(int(table.index.max()) + 1), columns=range(int(table.columns.max()) + 1))
        return cls(name, torch.tensor(table.to_numpy(dtype=float, copy=True), dtype=torch.float32))

    def __repr__(self) -> str:
        top = display.with_values(self.values, display.strongest(self.values, 5))
        return f"HeadScores({self.name!r}, {size(*self.values.shape)}, highest: {top})"

    def __str__(self) -> str:
        return f"{self.name}, {size(*self.values.shape)}\n{display.text_map(self.values)}"

    def _repr_html_(self) -> str:
        top = display.with_values(self.values, display.strongest(self.values, 5))
        return display.card(self.name, {"highest": top}, display.score_map(self.values))


@runtime_checkable
class HasHeads(Protocol):
    """A search for heads (`arm_lens.selection.Selection`), or a reward model, whose ``selection`` is its search or None."""

    @property
    def heads(self) -> HeadSet:
        """The chosen heads."""


@runtime_checkable
class ScoredLike(Protocol):
    """What scores heads for outcomes (`arm_lens.attribution.Attribution`)."""

    def head_scores(self) -> HeadScores:
        """The scores of its first outcome, or of the usual one."""

    def frame(self) -> pd.DataFrame:
        """criterion, measure, outcome, layer, head, score, ..."""


Thing = TypeVar("Thing")
Named: TypeAlias = Mapping[str, Thing | Sequence[Thing]]
"""Things by name, or several repetitions (seeds, example samples) of each name."""
Chosen: TypeAlias = HeadSet | HasHeads
"""What has a set of heads."""
Scored: TypeAlias = HeadScores | HasHeads | ScoredLike
"""What has a score for each head."""


def heads_frame(heads: Chosen | Named[Chosen] | pd.DataFrame) -> pd.DataFrame:
    """Which heads were chosen, as a table like `arm_lens.frames.HEADS`: a row per name, repetition and head.

    The column ``probability`` is what the search left: REINFORCE's probabilities, or gates. Heads that were given are
    certain, 0 or 1. It is NaN if a search used something else (effects of single heads, gains of added ones).

    Args:
        heads: head sets, selections or reward models; or a table.
    """

    def rows(one: Chosen) -> pd.DataFrame:
        search, chosen = _search_of(one), one if isinstance(one, HeadSet) else one.heads
        table = chosen.frame()
        if search is None:
            return table.assign(probability=table["selected"].astype(float))
        scores = search.head_scores
        return table.assign(probability=scores.frame()["score"] if scores.name in PROBABILITIES else np.nan)

    return _gathered(heads, rows)


def history_frame(searches: HasHeads | Named[HasHeads] | pd.DataFrame) -> pd.DataFrame:
    """How searches went, as a table like `arm_lens.frames.HISTORY`; heads that were not searched for are left out.

    Args:
        searches: selections or reward models; or a table.
    """
    return _gathered(searches, lambda one: None if (search := _search_of(one)) is None else search.history)


def trajectory_frame(searches: HasHeads | Named[HasHeads] | pd.DataFrame, *, steps: int | None = None) -> pd.DataFrame:
    """Every head's probability at every step, as a table like `arm_lens.frames.TRAJECTORY`.

    Args:
        searches: selections or reward models, or a table. Searches without a trajectory are left out; of several
            repetitions the first that has a trajectory is taken.
        steps: how many, evenly spaced, the first and the last among them; all if not given.
    """

    def rows(one: HasHeads) -> pd.DataFrame | None:
        search = _search_of(one)
        values = None if search is None else search.trajectory
        if values is None:
            return None
        index = range(len(values)) if steps is None else evenly_spaced(len(values), steps)
        found = pd.concat(
            {step: HeadScores("", values[step]).frame().rename(columns={"score": "probability"}) for step in index},
            names=["step", None],
        )
        return found.reset_index("step").reset_index(drop=True)

    found = _gathered(searches, rows)
    if isinstance(searches, pd.DataFrame) or found.empty:
        return found
    first = found.groupby("criterion", sort=False)["seed"].transform("first")
    return found[found["seed"] == first].drop(columns="seed").reset_index(drop=True)


def attributions_frame(scores: ScoredLike | Sequence[ScoredLike] | Named[ScoredLike] | pd.DataFrame) -> pd.DataFrame:
    """Scores of heads, as a table like `arm_lens.frames.ATTRIBUTIONS`.

    Args:
        scores: one attribution, several, or by the name of the criterion; or a table.
    """
    found = _gathered(scores, lambda one: one.frame(), named=isinstance(scores, Mapping))
    return found if isinstance(scores, pd.DataFrame) else found.drop(columns="seed", errors="ignore")


def head_sets(
    heads: Chosen | Named[Chosen] | pd.DataFrame, *, by: Sequence[str] = ("criterion", "seed")
) -> dict[str, HeadSet]:
    """Sets of heads by name.

    Args:
        heads: head sets, selections or reward models by name; or a table like `arm_lens.frames.HEADS`, with a row for
            every head of the model, chosen or not. Those of different models may have different sizes.
        by: the columns of a table, or of several repetitions, that tell one set from another. Texts name themselves,
            numbers are named with their column: ``polite, seed 0``.

    Returns:
        The sets in the order given, or of first appearance.

    Raises:
        ValueError: naming a missing column, or the set in which a head is missing, or twice (when ``by`` leaves out a
            column that tells sets apart), or neither selected nor not.
    """
    if isinstance(heads, Mapping):
        single = {name: one for name, one in heads.items() if not isinstance(one, Sequence)}
        if len(single) == len(heads):
            return {name: one if isinstance(one, HeadSet) else one.heads for name, one in single.items()}
    table = checked(heads_frame(heads), HEADS.needing(*by, "layer", "head", "selected", key=()))
    sets: dict[str, HeadSet] = {}
    for key, rows in table.groupby(list(by), sort=False, dropna=False):
        name = name_of(by, key)
        if name in sets:
            raise ValueError(f"two sets of heads have the name {name!r}")
        try:
            sets[name] = HeadSet.from_frame(rows[["layer", "head", "selected"]])
        except ValueError as error:
            raise ValueError(f"{name!r} (sets by {', '.join(by)}): {error}") from None
    return sets


def head_scores(scores: Mapping[str, Scored]) -> dict[str, HeadScores]:
    """Scores of heads by name: as they are, what a search chose by, or an attribution's.

    Raises:
        ValueError: naming a reward model whose heads were given, not searched for.
    """
    found = {}
    for name, one in scores.items():
        search = one if isinstance(one, HeadScores) else _search_of(one)
        if search is None:
            raise ValueError(f"the heads of {name!r} were given, not searched for: they have no scores")
        known = search if isinstance(search, HeadScores) else search.head_scores
        found[name] = known if isinstance(known, HeadScores) else known()
    return found


def name_of(columns: Sequence[str], key: object) -> str:
    """The name of a group by ``columns``: texts as they are, anything else after its column, separated by commas."""
    named = zip(columns, key if isinstance(key, tuple) else (key,), strict=True)
    return ", ".join(value if isinstance(value, str) else f"{column} {value}" for column, value in named)


def evenly_spaced(count: int, most: int) -> list[int]:
    """At most ``most`` of the indices 0 to ``count`` - 1, evenly spaced, the first and the last among them."""
    return sorted({round(index) for index in np.linspace(0, count - 1, min(count, most)).tolist()})


def _search_of(one: Any) -> Any:
    """The search behind a reward model; None if heads were given. A search is its own."""
    return None if isinstance(one, HeadSet) else getattr(one, "selection", one)


def _gathered(things: Any, rows: Callable[[Any], pd.DataFrame | None], *, named: bool = True) -> pd.DataFrame:
    """The rows of each thing with the columns ``criterion``, its name, and ``seed``; a table as it is.

    Args:
        things: one, several, or a mapping of names to one or several.
        rows: a thing's own columns; None or an empty table leaves the thing out.
        named: if false, ``criterion`` is left as it is in the rows.
    """
    if isinstance(things, pd.DataFrame):
        return things
    frames = []
    for name, given in (things if isinstance(things, Mapping) else {_record(things, "criterion", ""): things}).items():
        several = given if isinstance(given, Sequence) else [given]
        seeds = [_record(one, "seed", number) for number, one in enumerate(several)]
        if len(set(seeds)) < len(seeds):
            seeds = list(range(len(seeds)))
        for seed, one in zip(seeds, several, strict=True):
            found = rows(one)
            if found is not None and not found.empty:
                facts = {"criterion": name, "seed": seed} if named else {"seed": seed}
                rest = found.drop(columns=list(facts), errors="ignore")
                frames.append(pd.concat([pd.DataFrame(facts, index=rest.index), rest], axis=1))
    return pd.concat(frames, ignore_index=True) if frames else pd.DataFrame()


def _record(one: Any, fact: str, otherwise: Any) -> Any:
    return getattr(getattr(one, "record", None), fact, otherwise)


def _by_head(n_layers: int, n_heads: int) -> pd.DataFrame:
    """layer, head: a row for each."""
    layers, heads = np.divmod(np.arange(n_layers * n_heads), n_heads)
    return pd.DataFrame({"layer": layers, "head": heads})
