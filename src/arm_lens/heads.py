"""The vocabulary everything else speaks: a head, a set of heads, a score per head.

An attention head is named by its layer and its index within the layer, ``L3H5``. A set of heads is the same thing as a
boolean mask ``[layer, head]``; it remembers the size of the model it belongs to, so that sets of different models are
never compared by accident.

Searches, reward models and measures of heads come out as objects; figures and comparisons are made from tables. The second
half of this module is the one place where the first become the second: `heads_frame`, `history_frame`, `trajectory_frame`,
`attributions_frame`, and by name `head_sets` and `head_scores`. Each takes one object, several by name (of a criterion, a
selector, ...), several repetitions of each, or a table as it is.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol, TypeAlias, TypeVar, runtime_checkable

import numpy as np
import pandas as pd
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from arm_lens.display import (
    card,
    counted,
    head_name,
    listed,
    score_map,
    set_map,
    size,
    small_print,
    strongest,
    text_map,
    with_values,
)
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
                raise ValueError(f"{head} is outside a model of {self.n_layers} layers of {self.n_heads} heads")

    @classmethod
    def of(cls, n_layers: int, n_heads: int, heads: Iterable[tuple[int, int]]) -> HeadSet:
        """The set of the given (layer, head) pairs."""
        return cls(n_layers, n_heads, frozenset(Head(*head) for head in heads))

    @classmethod
    def from_mask(cls, mask: Bool[Tensor, "layer head"]) -> HeadSet:
        """The heads at which ``mask`` is true."""
        return cls.of(mask.shape[0], mask.shape[1], [(int(i), int(j)) for i, j in mask.nonzero().tolist()])

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
        chosen = []
        for layer, count in enumerate(self.mask.sum(dim=1).tolist()):
            order = torch.randperm(self.n_heads, generator=generator)[: int(count)]
            chosen += [(layer, head) for head in order.tolist()]
        return HeadSet.of(self.n_layers, self.n_heads, chosen)

    def jaccard(self, other: HeadSet) -> float:
        """|A and B| / |A or B|, in [0, 1]; two empty sets are equal, hence 1."""
        union = self | other
        return len(self & other) / len(union) if len(union) else 1.0

    def _compatible(self, other: HeadSet) -> HeadSet:
        if (self.n_layers, self.n_heads) != (other.n_layers, other.n_heads):
            raise ValueError(
                f"head sets of different models: {self.n_layers} layers of {self.n_heads} heads "
                f"and {other.n_layers} of {other.n_heads}"
            )
        return other

    def __or__(self, other: HeadSet) -> HeadSet:
        return HeadSet(self.n_layers, self.n_heads, self.heads | self._compatible(other).heads)

    def __and__(self, other: HeadSet) -> HeadSet:
        return HeadSet(self.n_layers, self.n_heads, self.heads & self._compatible(other).heads)

    def __sub__(self, other: HeadSet) -> HeadSet:
        return HeadSet(self.n_layers, self.n_heads, self.heads - self._compatible(other).heads)

    def __len__(self) -> int:
        return len(self.heads)

    def __iter__(self) -> Iterator[Head]:
        return iter(sorted(self.heads))

    def __contains__(self, head: object) -> bool:
        return head in self.heads

    def __str__(self) -> str:
        return "{" + ", ".join(map(str, self)) + "}"

    def __repr__(self) -> str:
        return f"HeadSet({counted(len(self), 'head')} {listed(self)} in {size(self.n_layers, self.n_heads)})"

    def _repr_html_(self) -> str:
        title = f"{len(self)} of {counted(self.n_layers * self.n_heads, 'head')}"
        return card(title, {}, set_map(self.mask), small_print(listed(self, most=40)))

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
            ValueError: naming a missing column, or the head that is there twice, or neither selected nor not; or saying
                that some head has no row.
        """
        checked(frame, ONE_SET)
        places = frame[["layer", "head"]].to_numpy(dtype=int)
        for layer, head in places[~frame["selected"].isin([True, False]).to_numpy()].tolist():
            raise ValueError(f"{Head(layer, head)} is neither selected nor not")
        n_layers, n_heads = (int(most) + 1 for most in places.max(axis=0))
        if len(places) < n_layers * n_heads:
            raise ValueError(
                f"there are {len(places)} rows for the {n_layers * n_heads} heads of a model of {n_layers} layers of "
                f"{n_heads}; the table has a row for every head, chosen or not"
            )
        chosen = places[frame["selected"].to_numpy(dtype=bool)]
        return cls.of(n_layers, n_heads, [(int(layer), int(head)) for layer, head in chosen])


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
        checked(frame, HEAD_SCORES)
        table = frame.pivot(index="layer", columns="head", values="score")
        table = table.reindex(index=range(int(table.index.max()) + 1), columns=range(int(table.columns.max()) + 1))
        return cls(name, torch.tensor(table.to_numpy(dtype=float, copy=True), dtype=torch.float32))

    def __repr__(self) -> str:
        top = with_values(self.values, strongest(self.values, 5))
        return f"HeadScores({self.name!r}, {size(*self.values.shape)}, highest: {top})"

    def __str__(self) -> str:
        return f"{self.name}, {size(*self.values.shape)}\n{text_map(self.values)}"

    def _repr_html_(self) -> str:
        top = with_values(self.values, strongest(self.values, 5))
        return card(self.name, {"highest": top}, score_map(self.values))


@runtime_checkable
class SearchLike(Protocol):
    """What a search for heads gives (`arm_lens.selection.Selection`)."""

    @property
    def heads(self) -> HeadSet:
        """Those that were chosen."""
        ...

    @property
    def head_scores(self) -> HeadScores:
        """What they were chosen by."""
        ...

    @property
    def history(self) -> pd.DataFrame:
        """A row per step: step, reward, ..."""
        ...

    @property
    def trajectory(self) -> Float[Tensor, "step layer head"] | None:
        """The probabilities at each step, if the search has such."""
        ...


@runtime_checkable
class FittedLike(Protocol):
    """What writes at heads (`arm_lens.ActivationRewardModel`)."""

    @property
    def heads(self) -> HeadSet:
        """Where it writes."""
        ...

    @property
    def selection(self) -> SearchLike | None:
        """How they were found; None if they were given."""
        ...


@runtime_checkable
class ScoredLike(Protocol):
    """What scores heads for outcomes (`arm_lens.attribution.Attribution`)."""

    def head_scores(self) -> HeadScores:
        """Of its first outcome, or of the usual one."""
        ...

    def frame(self) -> pd.DataFrame:
        """criterion, measure, outcome, layer, head, score, ..."""
        ...


Thing = TypeVar("Thing")
Named: TypeAlias = Mapping[str, Thing | Sequence[Thing]]
"""Things by name, or of each name several repetitions (seeds, example samples)."""
Chosen: TypeAlias = HeadSet | SearchLike | FittedLike
"""What has a set of heads."""
Searched: TypeAlias = SearchLike | FittedLike
Scored: TypeAlias = HeadScores | SearchLike | FittedLike | ScoredLike
"""What has a score for each head."""


def heads_frame(heads: Chosen | Named[Chosen] | pd.DataFrame) -> pd.DataFrame:
    """Which heads were chosen, as a table like `arm_lens.frames.HEADS`: a row per name, repetition and head.

    The column ``probability`` is what the search left: REINFORCE's probabilities, or gates. Heads that were given are
    certain, 0 or 1. It is NaN where a search went by something else (effects of single heads, gains of added ones).

    Args:
        heads: head sets, selections or reward models; a table is given back as it is.
    """

    def rows(one: Chosen) -> pd.DataFrame:
        if isinstance(one, HeadSet):
            return one.frame().assign(probability=one.mask.flatten().double().numpy())
        search = _search_of(one)
        if search is None:
            return rows(one.heads)
        scores = search.head_scores
        known = scores.frame()["score"] if scores.name in PROBABILITIES else np.nan
        return one.heads.frame().assign(probability=known)

    return heads if isinstance(heads, pd.DataFrame) else _gathered(heads, rows)


def history_frame(searches: Searched | Named[Searched] | pd.DataFrame) -> pd.DataFrame:
    """How searches went, as a table like `arm_lens.frames.HISTORY`; what was not searched for is left out.

    Args:
        searches: selections or reward models; a table is given back as it is.
    """

    def rows(one: Searched) -> pd.DataFrame | None:
        search = _search_of(one)
        return None if search is None or search.history.empty else search.history

    return searches if isinstance(searches, pd.DataFrame) else _gathered(searches, rows)


def trajectory_frame(searches: Searched | Named[Searched] | pd.DataFrame, *, steps: int | None = None) -> pd.DataFrame:
    """Every head's probability at every step, as a table like `arm_lens.frames.TRAJECTORY`.

    Args:
        searches: selections or reward models; those without a trajectory are left out, and of several repetitions the
            first that has one is taken. A table is given back as it is.
        steps: how many, evenly spaced, the first and the last among them; all if not given.
    """

    def rows(one: Searched) -> pd.DataFrame | None:
        search = _search_of(one)
        values = None if search is None else search.trajectory
        if values is None:
            return None
        last = len(values) - 1
        at = range(last + 1) if steps is None else sorted({round(step) for step in np.linspace(0, last, steps)})
        parts = [
            _by_head(*values.shape[1:]).assign(step=step, probability=values[step].flatten().double().numpy())
            for step in at
        ]
        return pd.concat(parts, ignore_index=True)[["step", "layer", "head", "probability"]]

    if isinstance(searches, pd.DataFrame):
        return searches
    found = _gathered(searches, rows)
    if found.empty:
        return found
    first = found.groupby("criterion", sort=False)["seed"].transform("first")
    return found[found["seed"] == first].drop(columns="seed").reset_index(drop=True)


def attributions_frame(scores: ScoredLike | Sequence[ScoredLike] | Named[ScoredLike] | pd.DataFrame) -> pd.DataFrame:
    """Scores of heads, as a table like `arm_lens.frames.ATTRIBUTIONS`.

    Args:
        scores: one attribution, several, or by the name of the criterion; a table is given back as it is.
    """
    if isinstance(scores, pd.DataFrame):
        return scores
    named = scores if isinstance(scores, Mapping) else {None: scores}
    frames = []
    for name, given in named.items():
        for one in given if isinstance(given, Sequence) else [given]:
            frames.append(one.frame() if name is None else one.frame().assign(criterion=name))
    return pd.concat(frames, ignore_index=True) if frames else pd.DataFrame()


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
    table = heads_frame(heads)
    checked(table, HEADS.needing(*by, "layer", "head", "selected", key=()))
    sets: dict[str, HeadSet] = {}
    for key, rows in table.groupby(list(by), sort=False, dropna=False):
        name = name_of(by, key if isinstance(key, tuple) else (key,))
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


def name_of(columns: Sequence[str], values: Sequence[object]) -> str:
    """Texts as they are, anything else after its column, separated by commas."""
    named = zip(columns, values, strict=True)
    return ", ".join(value if isinstance(value, str) else f"{column} {value}" for column, value in named)


def _search_of(one: Any) -> Any:
    """The search behind a reward model, None if it has none; a search is its own."""
    return one.selection if isinstance(one, FittedLike) else one


def _gathered(things: Any, rows: Callable[[Any], pd.DataFrame | None]) -> pd.DataFrame:
    """The rows of each thing under its name, as the column ``criterion``, and its seed."""
    named = things if isinstance(things, Mapping) else {_record(things, "criterion", ""): things}
    frames = []
    for name, given in named.items():
        several = list(given) if isinstance(given, Sequence) else [given]
        seeds = [_record(one, "seed", number) for number, one in enumerate(several)]
        if len(set(seeds)) < len(seeds):
            seeds = list(range(len(seeds)))
        for seed, one in zip(seeds, several, strict=True):
            if (found := rows(one)) is not None:
                found = found.drop(columns=[c for c in ("criterion", "seed") if c in found.columns])
                frames.append(
                    pd.concat([pd.DataFrame({"criterion": name, "seed": seed}, index=found.index), found], axis=1)
                )
    return pd.concat(frames, ignore_index=True) if frames else pd.DataFrame()


def _record(one: Any, fact: str, otherwise: Any) -> Any:
    """What a reward model's record says."""
    return getattr(getattr(one, "record", None), fact, otherwise)


def _by_head(n_layers: int, n_heads: int) -> pd.DataFrame:
    """layer, head: a row for each."""
    layers, heads = np.divmod(np.arange(n_layers * n_heads), n_heads)
    return pd.DataFrame({"layer": layers, "head": heads})
