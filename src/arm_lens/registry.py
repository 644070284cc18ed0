"""Judges and selectors by name.

A *spec* is everything that the rest of the library needs to know about a judge or a selector without importing it: its
name, its options as a pydantic model, its label and style in figures, a line about it (its class says more). A *preset* is
a spec of its own, with some of the options set: ``published`` is `Reinforce` with the published settings, ``arm_greedy``
the judge ``arm`` with a greedy search.

A registry is filled through entry points of the groups ``arm_lens.judges`` and ``arm_lens.selectors``, so that an
installed package can add to it; arm_lens' own are declared in the same way. An entry point names a spec or a sequence of
specs (one with its presets). They are loaded when a name is first asked for. `Registry.register` adds one by hand:

    JUDGES.register(JudgeSpec(name="coin", options=CoinOptions, ...))

Nothing here imports a judge, a selector or a model.
"""

from __future__ import annotations

import copy
import inspect
import textwrap
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from importlib.metadata import entry_points
from typing import Any, ClassVar, TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError, model_validator
from pydantic.fields import FieldInfo

Options = Mapping[str, Any]


class UnknownNameError(ValueError):
    """A name that is not in a registry; the message lists the names that are."""


class OptionsError(ValueError):
    """An option that a judge or selector does not have, or a value that it does not accept."""


class BrokenEntryPointWarning(UserWarning):
    """An installed package announces a judge or selector that cannot be loaded."""


class OptionsModel(BaseModel):
    """Checked, frozen options, for which a misspelt name is an error.

    A field may be a *group*, itself a model of options, whose fields may also be given next to it: ``{"layout": "ranked"}``
    is the same as ``{"question": {"layout": "ranked"}}``.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True, allow_inf_nan=False)
    groups: ClassVar[tuple[str, ...]] = ()
    """The fields that are groups."""

    @classmethod
    def __pydantic_init_subclass__(cls, **kwargs: Any) -> None:
        kinds = {name: field.annotation for name, field in cls.model_fields.items()}
        cls.groups = tuple(
            name for name, kind in kinds.items() if isinstance(kind, type) and issubclass(kind, OptionsModel)
        )
        cls.__doc__ = documented(inspect.getdoc(cls) or "", cls.model_fields)

    @classmethod
    def grouped(cls, values: Options) -> dict[str, Any]:
        """Move options that belong to a group into it; a ValueError names one that is given twice."""
        owner = {option: group for group in cls.groups for option in _model_of(cls, group).model_fields}
        found: dict[str, Any] = {name: value for name, value in values.items() if name in cls.model_fields}
        for name, value in values.items():
            if name in cls.model_fields or name not in owner:
                found[name] = value
                continue
            own = found.get(owner[name], {})
            own = own if isinstance(own, Mapping) else own.model_dump(exclude_unset=True)
            if name in own:
                raise ValueError(f"{name!r} is given twice, once within {owner[name]!r}")
            found[owner[name]] = {**own, name: value}
        return found

    @model_validator(mode="before")
    @classmethod
    def _grouped(cls, values: Any) -> Any:
        return cls.grouped(values) if isinstance(values, Mapping) else values


def documented(doc: str, fields: Mapping[str, FieldInfo]) -> str:
    """A class docstring for ``help()``, with a paragraph about each field that has a docstring."""
    lines = [
        textwrap.fill(
            f"{name}: {' '.join(known.description.split())}", 112, initial_indent="    ", subsequent_indent=" " * 8
        )
        for name, known in fields.items()
        if known.description
    ]
    return "\n".join([doc.partition("\n\nOptions:\n")[0], "", "Options:", *lines]) if lines else doc


@dataclass(frozen=True, kw_only=True)
class Style:
    """Label and look in figures."""

    label: str
    color: str
    """Hexadecimal."""
    symbol: str
    """One of plotly's. No two judges share one, so that they differ in greyscale too."""
    group: str
    """The heading in legends and lists."""


SpecType = TypeVar("SpecType", bound="Spec")


@dataclass(frozen=True, kw_only=True)
class Spec:
    """An entry of a registry."""

    name: str
    options: type[BaseModel]
    """The model of its options; fields without a default are required."""
    summary: str
    """One line, which ends with a full stop."""
    defaults: Options = field(default_factory=dict)
    """Options whose default differs from their model's; a preset has some, and so may a judge."""
    preset_of: str | None = None
    """The name of the spec that it is a preset of."""
    place: int = 0
    """The position in lists and figures, from above."""
    noun: ClassVar[str] = "entry"

    def parse(self, options: Options | None = None) -> Any:
        """The options as an instance of their model; what is not given has its default.

        Raises:
            OptionsError: naming what is wrong, and listing the known options.
        """
        try:
            return self.options.model_validate(_merged(self._grouped(self.defaults), self._grouped(options or {})))
        except ValidationError as error:
            raise OptionsError("; ".join(self._explained(one) for one in error.errors())) from error
        except ValueError as error:
            raise OptionsError(f"the {self.noun} {self.name!r}: {error}") from error

    def preset(self: SpecType, name: str, options: Options, *, summary: str) -> SpecType:
        """The same with some of its options set, under another name."""
        defaults = _merged(self._grouped(self.defaults), self._grouped(options))
        preset_of = self.preset_of or self.name
        return replace(self, name=name, defaults=defaults, summary=summary, preset_of=preset_of)

    def _grouped(self, options: Options) -> dict[str, Any]:
        return self.options.grouped(options) if issubclass(self.options, OptionsModel) else dict(options)

    def _explained(self, error: Any) -> str:
        """One of pydantic's errors, in the words of a configuration."""
        place = [str(part) for part in error["loc"]]
        spec, option = f"the {self.noun} {self.name!r}", ".".join(place)
        if error["type"] == "extra_forbidden":
            model = self.options
            for part in place[:-1]:
                model = _model_of(model, part)
            group = f" in {'.'.join(place[:-1])!r}" if place[:-1] else ""
            return f"{spec} has no option {place[-1]!r}{group}; it has {', '.join(_names(model)) or 'none'}"
        if error["type"] == "missing":
            return f"{spec} needs the option {option!r}"
        return f"{spec}{option and ', ' + option}: {error['msg'].removeprefix('Value error, ')}"


def always(options: Any) -> bool:
    """Whatever the options."""
    return True


def never(options: Any) -> bool:
    """Whatever the options."""
    return False


def _no_keys(options: Any) -> Mapping[str, str]:
    return {}


@dataclass(frozen=True, kw_only=True)
class JudgeSpec(Spec):
    """A judge that is found by name."""

    judge: type[Any]
    """Its class; a saved judge is found by ``judge.kind``."""
    fit: Callable[[Any, Any], Any]
    """Makes a judge from a `arm_lens.judges.base.FitContext` and the options, an instance of ``options``."""
    style: Style
    random: Callable[[Any], bool] = never
    """Whether it depends on a seed, by its options."""
    reads_examples: Callable[[Any], bool] = always
    """Whether it makes use of examples, by its options."""
    depends_on: Callable[[Any, Any], object] | None = None
    """What results depend on besides options, data and language model, by options and language model; JSON-like: the
    fingerprint of a second model, say."""
    keys: Callable[[Any], Mapping[str, str]] = _no_keys
    """The environment variables that its options send over the network, each with the host that gets it."""
    checks_fit: bool = False
    """Whether a benchmark also has it judge the examples that it was fitted to."""
    prompt: Callable[[Any, Any, Any], str] | None = None
    """What its language model would read about a preference, as text, by `FitContext`, options and preference; nothing is
    fitted for it. None for a judge that asks no model."""
    check: Callable[[Any], object] | None = None
    """Called before anything is run; raises a ValueError if the options cannot work here (a key that is not set)."""
    place: int = 1000
    noun: ClassVar[str] = "judge"

    def preset(self, name: str, options: Options, *, summary: str, **style: str) -> JudgeSpec:
        """The same judge with some of its options set, under another name, and with label, color and symbol in ``style``."""
        return replace(super().preset(name, options, summary=summary), style=replace(self.style, **style))


@dataclass(frozen=True, kw_only=True)
class SelectorSpec(Spec):
    """A selector that is found by name; ``options`` is the class of the selector itself."""

    noun: ClassVar[str] = "selector"


class Registry(Mapping[str, SpecType]):
    """Specs of one class by name, filled from a group of entry points, those of installed packages included."""

    def __init__(self, group: str, spec: type[SpecType]) -> None:
        self.group, self._spec = group, spec
        self._by_name: dict[str, SpecType] = {}
        self._loaded = False
        self._broken: dict[str, str] = {}

    def register(self, spec: SpecType | Iterable[SpecType]) -> None:
        """Add a spec, or several.

        Raises:
            TypeError: if it is not a spec of this registry's class.
            ValueError: if another one has its name.
        """
        for one in [spec] if isinstance(spec, Spec) else spec:
            if not isinstance(one, self._spec):
                raise TypeError(
                    f"a {self._spec.noun} is registered by a {self._spec.__name__}, not {type(one).__name__}"
                )
            if self._by_name.get(one.name, one) is not one:
                raise ValueError(f"there are two {self._spec.noun}s called {one.name!r}")
            self._by_name[one.name] = one

    def __getitem__(self, name: str) -> SpecType:
        self._load()
        if name in self._by_name:
            return self._by_name[name]
        broken = "".join(
            f"; {one!r} of an installed package cannot be loaded ({why})" for one, why in self._broken.items()
        )
        raise UnknownNameError(f"there is no {self._spec.noun} {name!r}; there are {', '.join(self)}{broken}")

    def __contains__(self, name: object) -> bool:
        self._load()
        return name in self._by_name

    def __iter__(self) -> Iterator[str]:
        self._load()
        # Sorting is stable: presets stay behind the spec that they are presets of.
        return iter(sorted(self._by_name, key=lambda name: self._by_name[name].place))

    def __len__(self) -> int:
        self._load()
        return len(self._by_name)

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
                text = f"the {self._spec.noun} {point.name!r} cannot be loaded from {point.value}: {error}"
                warnings.warn(BrokenEntryPointWarning(text), stacklevel=4)


JUDGES: Registry[JudgeSpec] = Registry("arm_lens.judges", JudgeSpec)
"""Every judge, and its presets."""
SELECTORS: Registry[SelectorSpec] = Registry("arm_lens.selectors", SelectorSpec)
"""Every selector, and its presets."""


def _merged(below: Options, above: Options) -> dict[str, Any]:
    """Two sets of options as one, the second winning; options of another ``kind`` replace the whole."""
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
    """The names of a model's options, each group followed by its own in brackets."""
    groups = getattr(model, "groups", ())
    return [
        f"{name} ({', '.join(_model_of(model, name).model_fields)})" if name in groups else name
        for name in model.model_fields
    ]
