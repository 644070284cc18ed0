"""What can be asked for by name: judges, and ways of choosing heads.

A *spec* is everything that the rest of the library wants to know of such a thing without knowing the thing itself: its
name, its options as a pydantic model, what it is called and how it is drawn in figures, a line and a paragraph about it.
A *preset* is a spec of its own, with some of the options set: ``published`` is `Reinforce` with the published settings,
``arm_greedy`` the judge ``arm`` with a greedy search.

A registry is filled through entry points, of the groups ``arm_lens.judges`` and ``arm_lens.selectors``, so that an
installed package can add to it; arm_lens' own are declared in the same way. An entry point names a spec or a sequence of
specs (one with its presets). They are loaded when a name is first asked for. `Registry.register` adds one by hand:

    JUDGES.register(JudgeSpec(name="coin", options=CoinOptions, ...))

Nothing here imports a judge, a selector or a model.
"""

from __future__ import annotations

import copy
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from importlib.metadata import entry_points
from typing import Any, ClassVar, Generic, TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError, model_validator

Options = Mapping[str, Any]


class UnknownNameError(ValueError):
    """A name that is not in a registry; the message lists those that are."""


class OptionsError(ValueError):
    """Options that a judge or selector does not have, or values that it does not take."""


class BrokenEntryPointWarning(UserWarning):
    """An installed package announces a judge or selector that cannot be loaded."""


class OptionsModel(BaseModel):
    """Options that are checked when they are made, and do not change: a misspelt name is an error.

    A field may be a *group*, itself a model of options. The fields of a group may also be given beside it:
    ``{"layout": "ranked"}`` says the same as ``{"question": {"layout": "ranked"}}``.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)
    groups: ClassVar[tuple[str, ...]] = ()
    """Names of the fields that are groups."""

    @classmethod
    def grouped(cls, values: Options) -> dict[str, Any]:
        """The same options with those of groups where they belong.

        Raises:
            ValueError: if an option is given both beside its group and in it.
        """
        found = {name: value for name, value in values.items() if name in cls.model_fields}
        for name, value in values.items():
            if name in found:
                continue
            group = next((group for group in cls.groups if name in _model_of(cls, group).model_fields), None)
            if group is None:
                found[name] = value
                continue
            own = found.get(group, {})
            own = own if isinstance(own, Mapping) else own.model_dump(exclude_unset=True)
            if name in own:
                raise ValueError(f"{name!r} is given twice, once within {group!r}")
            found[group] = {**own, name: value}
        return found

    @model_validator(mode="before")
    @classmethod
    def _grouped(cls, values: Any) -> Any:
        return cls.grouped(values) if isinstance(values, Mapping) else values


@dataclass(frozen=True, kw_only=True)
class Style:
    """How something is called and drawn in figures."""

    label: str
    color: str
    """Hexadecimal."""
    symbol: str
    """One of plotly's. No two judges share one, so that they can be told apart in greyscale."""
    group: str
    """The heading under which it stands."""


@dataclass(frozen=True, kw_only=True)
class Spec:
    """Something that can be asked for by name."""

    name: str
    options: type[BaseModel]
    """What can be said about it. A field without a default must be."""
    summary: str
    """One line, which ends with a full stop."""
    paragraph: str = ""
    """A paragraph for the documentation."""
    defaults: Options = field(default_factory=dict)
    """Options that are other than their model says; a preset has some, and so may a judge."""
    preset_of: str | None = None
    """The name of the spec that it is a preset of."""
    noun: ClassVar[str] = "entry"

    def parse(self, options: Options | None = None) -> Any:
        """The options as an instance of their model, its defaults where nothing is said.

        Raises:
            OptionsError: naming what is wrong, and the options there are.
        """
        try:
            return self.options.model_validate(self.merged(options or {}))
        except ValidationError as error:
            raise OptionsError("; ".join(self._explained(one) for one in error.errors())) from error
        except ValueError as error:
            raise OptionsError(f"the {self.noun} {self.name!r}: {error}") from error

    def merged(self, options: Options) -> dict[str, Any]:
        """The options with this spec's defaults under them, those of groups where they belong."""
        return _merged(self._grouped(self.defaults), self._grouped(options))

    def _grouped(self, options: Options) -> dict[str, Any]:
        return self.options.grouped(options) if issubclass(self.options, OptionsModel) else dict(options)

    def _explained(self, error: Any) -> str:
        """One of pydantic's errors, in the words of a configuration."""
        place = [str(part) for part in error["loc"]]
        if error["type"] == "extra_forbidden":
            model = self.options
            for part in place[:-1]:
                model = _model_of(model, part)
            where = f" in {'.'.join(place[:-1])!r}" if place[:-1] else ""
            known = _names(model)
            has = f"it has {', '.join(known)}" if known else "it has none"
            return f"the {self.noun} {self.name!r} has no option {place[-1]!r}{where}; {has}"
        if error["type"] == "missing":
            return f"the {self.noun} {self.name!r} needs the option {'.'.join(place)!r}"
        what = error["msg"].removeprefix("Value error, ")
        return f"the {self.noun} {self.name!r}, {'.'.join(place)}: {what}" if place else what


def always(options: Any) -> bool:
    """Whatever the options."""
    return True


def never(options: Any) -> bool:
    """Whatever the options."""
    return False


@dataclass(frozen=True, kw_only=True)
class JudgeSpec(Spec):
    """A judge that can be asked for by name."""

    judge: type[Any]
    """Its class; ``judge.kind`` is what a saved one is found by."""
    fit: Callable[[Any, Any], Any]
    """From a `arm_lens.judges.base.FitContext` and the options, an instance of ``options``, to a judge."""
    style: Style
    random: Callable[[Any], bool] = never
    """Whether it depends on a seed, by its options."""
    reads_examples: Callable[[Any], bool] = always
    """Whether it makes use of examples, by its options."""
    checks_fit: bool = False
    """Whether a benchmark also has it judge the examples it was fitted to."""
    check: Callable[[Any], None] | None = None
    """Refuses options that cannot work here (a key that is not set), with a ValueError, before anything is run."""
    place: int = 1000
    """Where it stands in lists and figures, from above."""
    noun: ClassVar[str] = "judge"

    def preset(
        self,
        name: str,
        options: Options,
        *,
        summary: str,
        label: str,
        color: str,
        symbol: str,
    ) -> JudgeSpec:
        """The same judge with some of its options set, under another name."""
        style = replace(self.style, label=label, color=color, symbol=symbol)
        return replace(
            self,
            name=name,
            defaults=_merged(self._grouped(self.defaults), self._grouped(options)),
            summary=summary,
            style=style,
            preset_of=self.preset_of or self.name,
        )


@dataclass(frozen=True, kw_only=True)
class SelectorSpec(Spec):
    """A way of choosing heads that can be asked for by name; ``options`` is the class of the selector itself."""

    noun: ClassVar[str] = "selector"

    def preset(self, name: str, options: Options, *, summary: str) -> SelectorSpec:
        """The same way with some of its options set, under another name."""
        return replace(
            self,
            name=name,
            summary=summary,
            defaults=_merged(self.defaults, options),
            preset_of=self.preset_of or self.name,
        )


SpecType = TypeVar("SpecType", bound=Spec)


class Registry(Generic[SpecType]):
    """Specs by name, those of installed packages included.

    Args:
        group: of the entry points that it is filled from.
        kind: what is in it, for errors: ``judge``.
        spec: the class of its specs.
    """

    def __init__(self, group: str, kind: str, spec: type[SpecType]) -> None:
        self.group, self.kind, self._spec = group, kind, spec
        self._by_name: dict[str, SpecType] = {}
        self._loaded = False
        self._broken: dict[str, str] = {}

    def register(self, spec: SpecType | Iterable[SpecType]) -> None:
        """Add a spec, or several.

        Raises:
            TypeError: if it is something else.
            ValueError: if there is one of that name.
        """
        for one in [spec] if isinstance(spec, Spec) else spec:
            if not isinstance(one, self._spec):
                raise TypeError(f"a {self.kind} is registered by a {self._spec.__name__}, not {type(one).__name__}")
            if self._by_name.get(one.name, one) is not one:
                raise ValueError(f"there are two {self.kind}s called {one.name!r}")
            self._by_name[one.name] = one

    def __getitem__(self, name: str) -> SpecType:
        self._load()
        if name in self._by_name:
            return self._by_name[name]
        broken = "".join(
            f"; {one!r} of an installed package cannot be loaded ({why})" for one, why in self._broken.items()
        )
        raise UnknownNameError(f"there is no {self.kind} {name!r}; there are {', '.join(self)}{broken}")

    def __contains__(self, name: object) -> bool:
        self._load()
        return name in self._by_name

    def __iter__(self) -> Iterator[str]:
        self._load()
        return iter(sorted(self._by_name, key=self._place))

    def __len__(self) -> int:
        self._load()
        return len(self._by_name)

    def values(self) -> list[SpecType]:
        """Every spec, in order."""
        return [self._by_name[name] for name in self]

    def items(self) -> list[tuple[str, SpecType]]:
        """Every name and spec, in order."""
        return [(name, self._by_name[name]) for name in self]

    def _place(self, name: str) -> int:
        return getattr(self._by_name[name], "place", 0)  # sorting is stable: presets stay behind what they are of

    def _load(self) -> None:
        if self._loaded:
            return
        self._loaded = True  # not again while entry points are being loaded
        for point in sorted(entry_points(group=self.group), key=lambda one: one.name):
            try:
                self.register(point.load())
            except Exception as error:  # another's package must not take ours down
                if point.value.startswith("arm_lens."):
                    self._loaded = False
                    raise
                self._broken[point.name] = f"{type(error).__name__}: {error}"
                text = f"the {self.kind} {point.name!r} cannot be loaded from {point.value}: {error}"
                warnings.warn(BrokenEntryPointWarning(text), stacklevel=4)


JUDGES: Registry[JudgeSpec] = Registry("arm_lens.judges", "judge", JudgeSpec)
"""Every judge, and its presets."""
SELECTORS: Registry[SelectorSpec] = Registry("arm_lens.selectors", "selector", SelectorSpec)
"""Every way of choosing heads, and its presets."""


def _merged(below: Options, above: Options) -> dict[str, Any]:
    """Two sets of options as one, the second winning. One of another ``kind`` takes the place of the whole."""
    found = copy.deepcopy(dict(below))
    for name, value in above.items():
        old = found.get(name)
        if isinstance(value, BaseModel) and isinstance(old, Mapping) and not hasattr(value, "kind"):
            value = value.model_dump(exclude_unset=True)
        if isinstance(old, Mapping) and isinstance(value, Mapping) and value.get("kind") in (None, old.get("kind")):
            found[name] = _merged(old, value)
        else:
            found[name] = value
    return found


def _model_of(model: type[BaseModel], name: str) -> type[BaseModel]:
    """The model of options of one of a model's fields."""
    annotation = model.model_fields[name].annotation
    for one in (annotation, *getattr(annotation, "__args__", ())):
        if isinstance(one, type) and issubclass(one, BaseModel):
            return one
    return BaseModel


def _names(model: type[BaseModel]) -> list[str]:
    """The names of a model's options, those of groups in brackets."""
    groups = getattr(model, "groups", ())
    return [
        f"{name} ({', '.join(_model_of(model, name).model_fields)})" if name in groups else name
        for name in model.model_fields
    ]
