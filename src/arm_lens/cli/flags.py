"""Options that several commands share, in groups: how data are read, which model, how questions are put.

Each group is a dataclass. A command with a parameter of such a type has the fields as options (`with_flags`), and gets one
object, which makes of them what the library takes.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from dataclasses import MISSING, dataclass, field, fields, is_dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, TypeVar, get_type_hints

import typer

if TYPE_CHECKING:
    from arm_lens.engine import Injection, ModelLike
    from arm_lens.judges.options import QuestionOptions, ReadingOptions
    from arm_lens.preferences import Preference
    from arm_lens.reward.model import ActivationRewardModel

Command = TypeVar("Command", bound=Callable[..., Any])
KindOfScore = Annotated[
    Literal["reward", "probability", "two_way", "gap"] | None,
    typer.Option(
        "--score-kind", help="P(Yes) over the vocabulary (reward, probability), P(Yes) of Yes and No, or the log-odds."
    ),
]
MOST_SEED = 2**32 - 1
"""The largest that all random generators take."""
MEANINGS: dict[str, bool | str] = {"yes": True, "true": True, "no": False, "false": False, "drop": "drop"}


def with_flags(command: Command) -> Command:
    """Turn each parameter that is a group of flags into the group's fields, for Typer."""
    hints = get_type_hints(command, include_extras=True)
    groups: dict[str, type[Any]] = {
        name: hint for name, hint in hints.items() if isinstance(hint, type) and is_dataclass(hint)
    }

    @functools.wraps(command)
    def run(**values: Any) -> Any:
        made = {
            name: group(**{one.name: values.pop(one.name) for one in fields(group)}) for name, group in groups.items()
        }
        return command(**values, **made)

    parameters: list[inspect.Parameter] = []
    for name, parameter in inspect.signature(command).parameters.items():
        if name not in groups:
            parameters.append(parameter.replace(annotation=hints[name]))
            continue
        types = get_type_hints(groups[name], include_extras=True)
        for one in fields(groups[name]):
            default = one.default if one.default_factory is MISSING else one.default_factory()
            parameters.append(inspect.Parameter(one.name, parameter.kind, default=default, annotation=types[one.name]))
    del run.__wrapped__
    parameters = [one.replace(kind=inspect.Parameter.KEYWORD_ONLY) for one in parameters]
    run.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    run.__annotations__ = {one.name: one.annotation for one in parameters}
    return run  # type: ignore[return-value]


def _some(help: str) -> Any:
    return typer.Option(help=f"{help} Repeatable.")


@dataclass(frozen=True)
class Rows:
    """Which rows and columns of a file are read."""

    split: Annotated[str, typer.Option(help="Which split to read, if there are several.")] = ""
    column: Annotated[
        list[str], _some("OURS=YOURS, e.g. prompt=question, metadata=labels; or a position, counted from 1: text=1.")
    ] = field(default_factory=list)
    on_error: Annotated[
        Literal["raise", "skip"], typer.Option(help="Refuse data with rows that cannot be read, or leave them out.")
    ] = "raise"
    limit: Annotated[int | None, typer.Option(min=1, help="Read only so many rows.")] = None
    allow_urls: Annotated[bool, typer.Option("--allow-urls", help="Open the web addresses of images.")] = False
    allow_any_path: Annotated[
        bool, typer.Option("--allow-any-path", help="Read images from outside the folder of the data.")
    ] = False

    @property
    def arguments(self) -> dict[str, Any]:
        """What these options are as arguments of `read_preferences` and `score_file`."""
        named = [text for text in self.column if text.partition("=")[0].strip() != "metadata"]
        aside = [
            _column(theirs)
            for text in self.column
            if text not in named
            for _, theirs in _pairs("column", [text], first=True)
        ]
        columns: dict[str, Any] = {ours: _column(theirs) for ours, theirs in _pairs("column", named, first=True)}
        columns |= {"metadata": aside if len(aside) > 1 else aside[0]} if aside else {}
        rest = {name: getattr(self, name) for name in ("on_error", "limit", "allow_urls", "allow_any_path")}
        return {"split": self.split or None, "columns": columns, **rest}


@dataclass(frozen=True)
class Data(Rows):
    """How files of preferences are read."""

    format: Annotated[str, typer.Option(help="The format, if it should not be recognised by its fields.")] = ""
    label: Annotated[list[str], _some("What a label means: joy=yes, anger=no, other=drop; or for ratings '>= 4'.")] = (
        field(default_factory=list)
    )
    winner: Annotated[list[str], _some("What a value of the column winner means: 'A>B=A', 'B>A=B', 'A=B=tie'.")] = (
        field(default_factory=list)
    )

    @property
    def arguments(self) -> dict[str, Any]:
        """What these options are as arguments of `read_preferences`."""
        return super().arguments | {
            "format": self.format or None,
            "labels": self._labels(),
            "winner": {name.strip(): meaning for name, meaning in _pairs("winner", self.winner)} or None,
        }

    def read(self, source: str, split: str = "") -> list[Preference]:
        """The preferences in a file, or ``hf://`` data set; of this split, if it is not the one of the option."""
        from arm_lens.preferences import read_preferences

        found = read_preferences(source, **(self.arguments | ({"split": split} if split else {})))
        if not found:
            raise ValueError(f"{source}: no preference is left; every row that was read is a tie or left out")
        return found

    def _labels(self) -> dict[str, bool | str] | str | None:
        if len(self.label) == 1 and self.label[0].strip()[:1] in "<>=":
            return self.label[0].strip()
        found = dict(_pairs("label", self.label))
        for name, meaning in found.items():
            if meaning.lower() not in MEANINGS:
                raise typer.BadParameter(f"--label {name}={meaning}: write {name}=yes, {name}=no or {name}=drop")
        return {name: MEANINGS[meaning.lower()] for name, meaning in found.items()} or None


@dataclass(frozen=True)
class Loading:
    """How a language model is loaded."""

    model_class: Annotated[
        Literal["TransformerBridge", "HookedTransformer"],
        typer.Option(help="Which TransformerLens class to load it as."),
    ] = "TransformerBridge"
    device: Annotated[str, typer.Option(help="e.g. cuda or cpu; by default CUDA where there is one.")] = ""
    dtype: Annotated[
        Literal["auto", "float64", "float32", "bfloat16", "float16"],
        typer.Option(
            help="Of weights and activations; auto: bfloat16 for half-precision weights if that is faster here."
        ),
    ] = "auto"

    def load(self, name: str) -> ModelLike:
        """The model of a hub name, folder or GGUF file; the bundled judge model if the name is empty."""
        from arm_lens.engine import load_model

        return load_model(name or None, model_class=self.model_class, device=self.device or None, dtype=self.dtype)

    def model_of(self, judge: str | Path, name: str) -> ModelLike | None:
        """The model of a name for a saved judge, by default in the dtype that it was fitted in; None without a name."""
        from arm_lens.judges.artefact import header_of
        from arm_lens.judges.hub import source_of

        if not name:
            usual = Loading()
            for option, value, own in (
                ("--dtype", self.dtype, usual.dtype),
                ("--model-class", self.model_class, usual.model_class),
            ):
                if value != own:
                    raise typer.BadParameter(
                        f"{option} {value} goes with --model; without it, the model is loaded as it was recorded"
                    )
            return None
        source = source_of(judge)
        with source.naming():
            dtype = header_of(source.folder).model.dtype if self.dtype == "auto" else self.dtype
        return replace(self, dtype=dtype).load(name)

    def reward_model(self, saved: str | Path, name: str) -> ActivationRewardModel:
        """A saved reward model, on the model that it names itself unless another is given."""
        from arm_lens.reward.model import ActivationRewardModel

        return ActivationRewardModel.load(saved, self.model_of(saved, name), device=self.device or None)


@dataclass(frozen=True)
class Asking:
    """How a saved reward model asks; it was recorded in the fit, and changes no question."""

    on_too_long: Annotated[
        Literal["raise", "skip", "clip"] | None,
        typer.Option(help="Questions longer than the model's context; by default as in the fit."),
    ] = None
    batch_size: Annotated[
        int | None, typer.Option(min=1, help="Prompts per forward pass; by default as in the fit.")
    ] = None


@dataclass(frozen=True)
class Question:
    """How a question is put to the judge."""

    criterion_text: Annotated[str, typer.Option(help="The criterion in words, put into every prompt.")] = ""
    layout: Annotated[Literal["scalar", "ranked"], typer.Option(help="Judge one response, or two side by side.")] = (
        "scalar"
    )
    template: Annotated[Path | None, typer.Option(help="A JSON file of JudgeTemplate's fields.")] = None
    system: Annotated[str, typer.Option(help="A system message, before everything else.")] = ""
    chat_template_kwarg: Annotated[
        list[str], _some("NAME=VALUE: a variable of the chat template, e.g. enable_thinking=false.")
    ] = field(default_factory=list)
    on_too_long: Annotated[
        Literal["raise", "skip", "clip"],
        typer.Option(help="Questions longer than the model's context: refuse, leave without a score, or shorten."),
    ] = "raise"
    batch_size: Annotated[int, typer.Option(min=1, help="Prompts per forward pass.")] = 16

    def options(self) -> QuestionOptions:
        """The same as the library's options."""
        from arm_lens.judges.options import QuestionOptions
        from arm_lens.judges.template import JudgeTemplate

        return QuestionOptions(
            criterion_text=self.criterion_text,
            layout=self.layout,
            template=None if self.template is None else JudgeTemplate.read(self.template),
            system=self.system,
            chat_template_kwargs=_values("chat-template-kwarg", self.chat_template_kwarg),
            on_too_long=self.on_too_long,
            batch_size=self.batch_size,
        )


@dataclass(frozen=True)
class Reading:
    """How examples are read, and heads chosen."""

    demonstrations: Annotated[int, typer.Option(min=0, help="Demonstrations in each prompt that is read.")] = 8
    readings: Annotated[int, typer.Option(min=1, help="Prompts that are read for the means.")] = 64
    folds: Annotated[int, typer.Option(min=2, help="Folds of the examples on which heads are chosen in turn.")] = 2
    selector: Annotated[
        str, typer.Option(help="How heads are chosen: reinforce, published, greedy, top_effect, soft_gate, ...")
    ] = "reinforce"
    selector_option: Annotated[list[str], _some("NAME=VALUE: an option of the selector, e.g. steps=300.")] = field(
        default_factory=list
    )
    reward: Annotated[
        Literal["log_prob", "two_way", "probability", "accuracy", "margin"],
        typer.Option(help="What the search for heads maximises."),
    ] = "two_way"
    injection: Annotated[
        Literal["replace", "add"], typer.Option(help="Write the means instead of the activations, or add them.")
    ] = "replace"
    strength: Annotated[float, typer.Option(help="How strongly the means are written; 1 writes them as they are.")] = (
        1.0
    )
    denoise: Annotated[bool, typer.Option("--denoise", help="Denoise the means by weighted principal components.")] = (
        False
    )
    seed: Annotated[int, typer.Option(min=0, max=MOST_SEED, help="Of everything that is random.")] = 0

    def options(self) -> ReadingOptions:
        """How examples are read, as the library's options."""
        from arm_lens.judges.options import Denoise, ReadingOptions

        return ReadingOptions(
            demonstrations=self.demonstrations,
            readings=self.readings,
            folds=self.folds,
            denoise=Denoise() if self.denoise else None,
        )

    def written(self) -> Injection:
        """How means are written, as the library's options."""
        from arm_lens.engine import Injection

        return Injection(mode=self.injection, strength=self.strength)

    def chooser(self) -> dict[str, Any]:
        """The selector by name, with its options."""
        return {"kind": self.selector, **_values("selector-option", self.selector_option)}


def _column(text: str) -> str | int:
    """A column by its name, or by its position."""
    return int(text) if text.isdecimal() else text


def _pairs(option: str, texts: list[str], *, first: bool = False) -> list[tuple[str, str]]:
    """NAME=VALUE texts as pairs, divided at the last ``=`` (the name is the user's), or at the first (the value is)."""
    found: dict[str, str] = {}
    for text in texts:
        name, equals, value = text.partition("=") if first else text.rpartition("=")
        if not equals or not name.strip() or not value.strip():
            raise typer.BadParameter(f"--{option} {text}: write NAME=VALUE")
        if name in found:
            raise typer.BadParameter(f"--{option}: {name} is given twice")
        found[name] = value.strip()
    return list(found.items())


def _values(option: str, texts: list[str]) -> dict[str, Any]:
    """The same with values as JSON, or text if they are none."""
    return {name: _value(value) for name, value in _pairs(option, texts, first=True)}


def _value(text: str) -> Any:
    from arm_lens.storage import parse_json

    try:
        return parse_json(text.encode(errors="replace"))
    except ValueError:
        return text
