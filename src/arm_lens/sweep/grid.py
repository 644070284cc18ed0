"""The grid of a sweep: a benchmark's configuration in which model, selector, layers and options are lists.

Every model is combined with every selector, every selector with every choice of layers, and with every value of each option;
criteria, numbers of examples, samples and seeds are those of the benchmark's studies. ``judges`` are run on each model in
addition, for comparison.
"""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Iterator
from itertools import product
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field, model_validator

from arm_lens.benchmark.config import (
    BenchmarkConfig,
    Count,
    JudgeChoice,
    Name,
    Resources,
    Some,
    Strict,
    inconsistent,
    model_path,
)
from arm_lens.benchmark.config_file import read_as
from arm_lens.engine import ModelClass
from arm_lens.engine.model_info import BUNDLED_NAME
from arm_lens.registry import JUDGES, OptionsError
from arm_lens.selection.selector import SelectorChoice

BUNDLED = "bundled"
"""The name of the bundled judge model in a grid."""
JUDGE = "arm"
"""The judge that selectors, layers and options are of."""
ALL_LAYERS = "all"


class ModelEntry(Strict):
    """A model of a grid: its name alone, or these fields, which replace the grid's own."""

    model: Annotated[str, AfterValidator(model_path)]
    """Hub name, local folder or GGUF file; ``bundled`` is the bundled judge model."""
    name: str = ""
    """Its name in the results; by default the model's, without folders."""
    model_class: ModelClass | None = None
    dtype: Literal["auto", "float32", "bfloat16", "float16"] | None = None
    device: str | None = None
    batch_size: Count | None = None
    resources: Resources | None = None
    """What each worker on a Ray cluster is given for it."""

    @model_validator(mode="before")
    @classmethod
    def _normalised(cls, value: Any) -> Any:
        return {"model": value} if isinstance(value, str) else value

    @property
    def label(self) -> str:
        """Its name in the results."""
        plain = BUNDLED_NAME if self.model == BUNDLED else self.model
        return self.name or (Path(plain).name if Path(plain).is_absolute() else plain)


class SelectorEntry(Strict):
    """A selector of a grid: its name alone, or its options with its ``kind`` and perhaps a ``name``."""

    name: Name
    """Its name in the results; by default that of its kind or preset."""
    selector: SelectorChoice

    @model_validator(mode="before")
    @classmethod
    def _normalised(cls, value: Any) -> Any:
        if isinstance(value, str):
            return {"name": value, "selector": value}
        if isinstance(value, dict) and "selector" not in value:
            options = {name: one for name, one in value.items() if name != "name"}
            return {"name": value.get("name") or value.get("kind") or "", "selector": options}
        return value


def _layers(value: Any) -> Any:
    """``all``, or layers as a tuple: of a list, or of a range such as ``4-7``."""
    if isinstance(value, str) and (found := re.fullmatch(r"(\d+)-(\d+)", value)):
        value = list(range(int(found[1]), int(found[2]) + 1))
    if value == ALL_LAYERS:
        return value
    numbers = value if isinstance(value, (list, tuple)) else ()
    if numbers and all(type(one) is int and one >= 0 for one in numbers) and len(set(numbers)) == len(numbers):
        return tuple(sorted(numbers))
    raise ValueError("write all, a list of layers such as [4, 5], or a range such as 4-7")


Layers = Annotated[Any, AfterValidator(_layers)]


class SweepGrid(BenchmarkConfig):
    """A sweep: a benchmark's configuration without ``model``, ``lead`` and ``keep_reward_models``, and with axes."""

    title: str = "A sweep of Activation Reward Models"
    judges: tuple[JudgeChoice, ...] = ()
    """Judges that are run on each model in addition."""
    models: Annotated[tuple[ModelEntry, ...], Some] = (ModelEntry(model=BUNDLED),)
    selectors: Annotated[tuple[SelectorEntry, ...], Some] = (SelectorEntry(name="reinforce", selector="reinforce"),)  # type: ignore[arg-type]
    layers: Annotated[tuple[Layers, ...], Some] = (ALL_LAYERS,)
    """In which layers heads may be chosen, for selectors that have the option; the others are run once, with all."""
    options: dict[str, Annotated[tuple[Any, ...], Some]] = Field(default_factory=dict)
    """Lists of values for further options of the judge ``arm``, such as ``demonstrations: [2, 8]``."""

    @model_validator(mode="after")
    def _consistent(self) -> SweepGrid:
        for name in ("model", "lead", "keep_reward_models"):
            if name in self.model_fields_set:
                remedy = "; list models: [...]" if name == "model" else ""
                raise inconsistent(f"a sweep has no field {name!r}{remedy}", name)
        for name, entries in (("models", self.models), ("selectors", self.selectors)):
            labels = [entry.label if isinstance(entry, ModelEntry) else entry.name for entry in entries]
            for index, label in enumerate(labels):
                if label in labels[:index]:
                    raise inconsistent(f"two {name} are called {label!r}; give one a name", name, index)
        for index, entry in enumerate(self.selectors):
            if getattr(entry.selector, "layers", None) is not None:
                raise inconsistent(
                    f"{entry.name!r} has layers of its own; the layers of a sweep are its field 'layers'",
                    "selectors",
                    index,
                )
        for index, one in enumerate(self.layers):
            if one in self.layers[:index]:
                raise inconsistent("the same layers are given twice", "layers", index)
        for index, study in enumerate(self.studies):
            if study.judges is not None:
                raise inconsistent(
                    "a study of a sweep has no judges of its own; leave them out", "studies", index, "judges"
                )
        self._check_options()
        taken = {JUDGE, *(label for label, _, _ in self.combinations)}
        for index, choice in enumerate(self.judges):
            if choice.label in taken:
                raise inconsistent(
                    f"{choice.label!r} is what the grid makes; give this judge another name", "judges", index
                )
        return self

    def _check_options(self) -> None:
        for name, values in self.options.items():
            if name in ("selector", "judge", "name", "seeds", *COLUMNS):
                raise inconsistent(f"{name!r} is not an option of its own; see the fields of a sweep", "options", name)
            for index, value in enumerate(values):
                if value in values[:index]:
                    raise inconsistent("the same value is given twice", "options", name, index)
                try:
                    JUDGES[JUDGE].parse({name: value})
                except OptionsError as error:
                    raise inconsistent(str(error), "options", name, index) from error

    @property
    def axes(self) -> list[str]:
        """The columns that distinguish fits, in addition to those of a benchmark."""
        return ["model", "selector", "layers", *self.options]

    @property
    def combinations(self) -> Iterator[tuple[str, dict[str, str], JudgeChoice]]:
        """Each combination of selector, layers and options: its label, its place on the axes, and the judge."""
        for entry, layers, values in product(self.selectors, self.layers, product(*self.options.values())):
            has_layers = "layers" in type(entry.selector).model_fields
            if not has_layers and layers != self.layers[0]:
                continue
            selector = entry.selector.model_dump(mode="json")
            if has_layers and layers != ALL_LAYERS:
                selector["layers"] = list(layers)
            options = dict(zip(self.options, values, strict=True))
            place = {"selector": entry.name, "layers": _layers_text(layers) if has_layers else ALL_LAYERS}
            place |= {name: value if isinstance(value, str) else json.dumps(value) for name, value in options.items()}
            parts = [entry.name, *([] if place["layers"] == ALL_LAYERS else [f"layers {place['layers']}"])]
            label = ", ".join([*parts, *(f"{name} {place[name]}" for name in options)])
            choice = {"judge": JUDGE, "name": label, "selector": selector, **options}
            yield label, place, JudgeChoice.model_validate(choice)

    @property
    def configs(self) -> list[tuple[str, BenchmarkConfig]]:
        """The benchmark of each model, with the model's name."""
        judges = [choice for _, _, choice in self.combinations]
        shared = {name: getattr(self, name) for name in BenchmarkConfig.model_fields}
        found = []
        for entry in self.models:
            own = {name: getattr(entry, name) for name in ("model_class", "dtype", "device", "batch_size", "resources")}
            own = {name: value for name, value in own.items() if value is not None}
            values = shared | own | {"model": None if entry.model == BUNDLED else entry.model}
            values |= {"judges": (*judges, *self.judges), "lead": judges[0].label}
            found.append((entry.label, BenchmarkConfig.model_construct(**values)))
        return found


COLUMNS = (
    *(
        "model",
        "layers",
        "benchmark",
        "subset",
        "unit",
        "judge",
        "n_examples",
        "noise",
        "sample",
        "seed",
        "n",
        "accuracy",
    ),
    *("ci_low", "ci_high", "auc", "auc_low", "auc_high", "fit_accuracy", "n_heads"),
    *("search_reward", "search_steps", "search_passes"),
    *("n_samples", "n_seeds", "sd_samples", "sd_seeds", "digest", "label", "state", "error"),
)
"""Columns of the results that no option may be called."""


def read_grid(path: str | Path, *, allow_keys: Collection[str] = (), data: str | Path | None = None) -> SweepGrid:
    """Read the YAML file of a grid; arguments and errors as for `arm_lens.benchmark.read_config`."""
    return read_as(SweepGrid, path, allow_keys=allow_keys, data=data)


def _layers_text(layers: Any) -> str:
    """``all``, ``4-7``, or ``0,3``."""
    if layers == ALL_LAYERS:
        return ALL_LAYERS
    first, last = min(layers), max(layers)
    if len(layers) > 1 and list(layers) == list(range(first, last + 1)):
        return f"{first}-{last}"
    return ",".join(map(str, layers))
