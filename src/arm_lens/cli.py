"""The command line: thin commands over the library.

arm-lens demo       the bundled judge model, eight criteria, five judges, one report
arm-lens fit        a reward model from labelled preferences, on any model
arm-lens score      rewards for prompts and responses in a file
arm-lens evaluate   a fitted reward model compared with its controls, on labelled preferences
arm-lens benchmark  every judge side by side, under a configuration
"""

from __future__ import annotations

import json
import os
import warnings
from functools import partial
from pathlib import Path
from typing import Annotated, Any, Literal

# arm_lens has progress bars of its own; those of Hugging Face would be one for each file of a model.
os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")

import pandas as pd
import torch
import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from arm_lens.benchmark import (
    DEMO,
    DEMONSTRATION,
    BenchmarkConfig,
    BenchmarkResults,
    controls_of,
    judge_preferences,
    read_config,
    run_benchmark,
)
from arm_lens.engine import ModelClass, load_model
from arm_lens.evaluation.main_setting import main_rows, main_settings
from arm_lens.evaluation.standings import mean_over_subsets
from arm_lens.judges.options import QuestionOptions, ReadingOptions
from arm_lens.judges.template import JudgeTemplate
from arm_lens.preferences import read_preferences
from arm_lens.reports import save_figures, write_report
from arm_lens.reward.model import ActivationRewardModel
from arm_lens.reward.scoring import score_file
from arm_lens.selection import PUBLISHED, Reinforce
from arm_lens.storage import StoreBusyError, locked

app = typer.Typer(
    help="Activation Reward Models: reward functions read from attention heads.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=False,
)
console = Console()

Model = Annotated[str, typer.Option(help="Hugging Face hub name or local folder; by default the bundled judge model.")]
SameModel = Annotated[
    str,
    typer.Option(help="Hub name or local folder; by default the model it was fitted on, with its class and dtype."),
]
Class = Annotated[ModelClass, typer.Option(help="The TransformerLens class of the model.")]
Device = Annotated[str, typer.Option(help="e.g. cuda or cpu; by default CUDA if it is available.")]
DType = Annotated[Literal["float32", "bfloat16", "float16"], typer.Option(help="Precision of the model.")]
Column = Annotated[list[str], typer.Option(help="Rename a column of the file, e.g. prompt=question. Repeatable.")]
Out = Annotated[Path, typer.Option(help="The folder to write to.")]


def _model(name: str, model_class: ModelClass, device: str, dtype: str) -> Any:
    return load_model(name or None, model_class=model_class, device=device or None, dtype=getattr(torch, dtype))


def _fitted(folder: Path, model: str, model_class: ModelClass, device: str, dtype: str) -> ActivationRewardModel:
    if model:
        return ActivationRewardModel.load(folder, _model(model, model_class, device, dtype))
    return ActivationRewardModel.load(folder, device=device or None)


def _columns(pairs: list[str]) -> dict[str, str]:
    wrong = [pair for pair in pairs if "=" not in pair]
    if wrong:
        raise typer.BadParameter(f"--column {wrong[0]}: write OURS=YOURS, e.g. prompt=question")
    return {ours: yours for ours, _, yours in (pair.partition("=") for pair in pairs)}


@app.command()
def demo(
    out: Out = Path("demo"),
    seeds: Annotated[int, typer.Option(min=1, help="How many seeds, each with examples of its own.")] = 3,
    test_items: Annotated[int, typer.Option(min=20, help="Held-out items per criterion.")] = 400,
    criterion: Annotated[list[str], typer.Option(help="Only these criteria. Repeatable.")] = [],  # noqa: B006
) -> None:
    """Fit and judge every criterion of the bundled model; write results.json, report.html and the reward models.

    Called again with the same folder, an interrupted run continues where it stopped.
    """
    values = read_config(DEMONSTRATION).model_dump(exclude_unset=True)
    values |= {"samples": seeds, "test_items": test_items}
    for study in values["studies"]:
        study.update({"criteria": criterion} if criterion else {})
    results = run_benchmark(BenchmarkConfig.model_validate(values), out, command="arm-lens demo")
    _show_subsets(results)
    _finish(results, out)


@app.command()
def fit(
    data: Annotated[Path, typer.Argument(help="Labelled preferences: JSONL, JSON, CSV or Parquet.")],
    out: Out,
    model: Model = "",
    model_class: Class = "TransformerBridge",
    device: Device = "",
    dtype: DType = "float32",
    validation: Annotated[
        Path | None, typer.Option(help="Preferences to choose heads on; by default DATA itself, cross-fitted.")
    ] = None,
    criterion: Annotated[str, typer.Option(help="The criterion's name, for the record.")] = "",
    template: Annotated[Path | None, typer.Option(help="A JSON file of JudgeTemplate's fields.")] = None,
    criterion_text: Annotated[str, typer.Option(help="The criterion in words, put into every prompt.")] = "",
    layout: Annotated[
        Literal["scalar", "ranked"], typer.Option(help="Judge one response, or two side by side.")
    ] = "scalar",
    demonstrations: Annotated[int, typer.Option(min=0, help="Demonstrations in each prompt that is read.")] = 8,
    steps: Annotated[int, typer.Option(min=1, help="Steps of the search for heads.")] = Reinforce().steps,
    published: Annotated[bool, typer.Option(help="Search exactly as published (600 steps, one item a step).")] = False,
    seed: int = 0,
    batch_size: Annotated[int, typer.Option(min=1)] = 16,
    column: Column = [],  # noqa: B006
) -> None:
    """Fit a reward model to labelled preferences and save it."""
    columns = _columns(column)
    wording = None if template is None else JudgeTemplate.from_dict(json.loads(template.read_text(encoding="utf-8")))
    fitted = ActivationRewardModel.fit(
        _model(model, model_class, device, dtype),
        read_preferences(data, columns=columns),
        validation=None if validation is None else read_preferences(validation, columns=columns),
        criterion=criterion,
        question=QuestionOptions(criterion_text=criterion_text, template=wording, layout=layout, batch_size=batch_size),
        reading=ReadingOptions(demonstrations=demonstrations),
        selector=PUBLISHED if published else Reinforce(steps=steps),
        seed=seed,
        progress=True,
    )
    fitted.save(out)
    assert fitted.selection is not None
    reward = fitted.selection.history["reward"]
    console.print(f"{len(fitted.heads)} heads: {fitted.heads}", soft_wrap=True)
    console.print(f"reward on the validation examples, mean over masks: {reward.iloc[0]:.3f} -> {reward.iloc[-1]:.3f}")
    console.print(f"Saved to {out}", soft_wrap=True)


@app.command()
def score(
    reward_model: Annotated[Path, typer.Argument(help="A folder that fit wrote.")],
    data: Annotated[Path, typer.Argument(help="A JSONL, CSV or Parquet file with columns prompt and response.")],
    out: Annotated[Path, typer.Option(help="A JSONL file; rows already in it are not scored again.")],
    model: SameModel = "",
    model_class: Class = "TransformerBridge",
    device: Device = "",
    dtype: DType = "float32",
    column: Column = [],  # noqa: B006
) -> None:
    """Write the reward of every response in a file: P(Yes) over the vocabulary, the two-way P(Yes), the logit gap."""
    options: dict[str, Any] = {"model": model, "model_class": model_class, "device": device, "dtype": dtype}
    load = partial(_fitted, **options)
    count = score_file(reward_model, data, out, columns=_columns(column), load=load, options=options, progress=True)
    console.print(f"{count} rewards in {out}", soft_wrap=True)


@app.command()
def evaluate(
    reward_model: Annotated[Path, typer.Argument(help="A folder that fit wrote.")],
    test: Annotated[Path, typer.Argument(help="Labelled preferences it was not fitted on.")],
    out: Out,
    examples: Annotated[
        Path, typer.Option(help="Labelled preferences for the few-shot prompts: those it was fitted on.")
    ],
    model: SameModel = "",
    model_class: Class = "TransformerBridge",
    device: Device = "",
    dtype: DType = "float32",
    random_sets: Annotated[int, typer.Option(min=1, help="Random head sets to compare with.")] = 20,
    column: Column = [],  # noqa: B006
) -> None:
    """Judge labelled preferences with a reward model and its controls; write results.json, tables and report.html."""
    columns = _columns(column)
    fitted = _fitted(reward_model, model, model_class, device, dtype)
    name = fitted.record.criterion
    controls = controls_of(fitted, read_preferences(examples, columns=columns), random_sets=random_sets)
    results = judge_preferences(
        {"reward_model": fitted, **controls},
        read_preferences(test, columns=columns),
        benchmark=name or "test",
        meta={
            "title": f"Reward model: {name or 'unnamed criterion'}",
            "model": fitted.info.name,
            "command": "arm-lens evaluate",
            "judge_names": {"reward_model": "Reward model"},
        },
    )
    with locked(out):
        results.save(out)
    _show_standings(results)
    _finish(results, out)


@app.command()
def benchmark(
    config: Annotated[str, typer.Argument(help="A YAML file; or demo, for the one that comes with arm_lens.")],
    out: Out = Path("benchmark"),
    workers: Annotated[int | None, typer.Option(min=1, help="Processes, instead of the file's.")] = None,
    allow_key: Annotated[
        list[str],
        typer.Option(help="NAME=HOST: let CONFIG send the environment variable NAME to HOST as a key. Repeatable."),
    ] = [],  # noqa: B006
    images: Annotated[
        bool, typer.Option(help="Write the figures as PNG and SVG too, where there is a Chromium.")
    ] = True,
) -> None:
    """Run judges side by side; write results.json, items.parquet, tables, figures and report.html.

    Called again with the same folder, an interrupted run continues where it stopped.
    """
    settings = read_config(DEMO if config == "demo" else Path(config), allow_keys=allow_key)
    if workers is not None:
        settings = settings.model_copy(update={"workers": workers})
    results = run_benchmark(settings, out)
    _show_standings(results)
    if images:
        try:
            save_figures(results, out / "figures")
        except RuntimeError as error:
            console.print(f"No images: {escape(str(error))}", soft_wrap=True)
    _finish(results, out)


def _finish(results: BenchmarkResults, out: Path) -> None:
    """Write the page, and print the failure signs and where the page is."""
    for check in results.checks:
        for line in check.found:
            console.print(f"[yellow]{escape(check.name)}:[/] {escape(line)}", soft_wrap=True)
    console.print(f"Look at {write_report(results, out)}", soft_wrap=True)


def _table(title: str, *columns: str) -> Table:
    """A table with names on the left and numbers on the right."""
    table = Table(title=title)
    for number, column in enumerate(columns):
        table.add_column(column, justify="right" if number else "left")
    return table


def _main_rows(results: BenchmarkResults) -> pd.DataFrame:
    return main_rows(results.tables.summary, main_settings(results.tables.summary))


def _show_subsets(results: BenchmarkResults) -> None:
    """Print the accuracy of every judge on every subset of the main comparison, mean over samples and seeds."""
    main = _main_rows(results)
    wide = main.pivot_table(index="subset", columns="judge", values="accuracy", sort=False, observed=True)
    table = _table("Accuracy, mean over seeds", "criterion", *map(str, wide.columns))
    for name, row in wide.iterrows():
        table.add_row(str(name), *(f"{value:.3f}" for value in row), end_section=name == wide.index[-1])
    if len(wide) > 1:
        table.add_row("mean", *(f"{value:.3f}" for value in wide.mean()))
    console.print(table)


def _show_standings(results: BenchmarkResults) -> None:
    """Print the accuracy of every judge in every benchmark's main comparison, mean over subsets, with its interval."""
    for name, rows in _main_rows(results).groupby("benchmark", sort=False, observed=True):
        items = rows.groupby("judge", sort=False)["n"].sum().to_dict()
        means = mean_over_subsets(rows).sort_values("accuracy", ascending=False, kind="stable")
        table = _table(f"{name}: accuracy, mean over subsets", "judge", "accuracy", "95 % interval", "items")
        for row in means.itertuples():
            interval = f"{row.ci_low:.3f} to {row.ci_high:.3f}"
            table.add_row(str(row.judge), f"{row.accuracy:.3f}", interval, str(items[row.judge]))
        console.print(table)


def main() -> None:
    """Run the command line, with errors and warnings in one line and without a traceback."""
    warnings.showwarning = lambda message, *_: console.print(
        f"[yellow]Warning:[/] {escape(str(message))}", soft_wrap=True
    )
    try:
        app()
    except (ValueError, OSError, ImportError, StoreBusyError) as error:
        console.print(f"[bold red]Error:[/] {escape(str(error))}", soft_wrap=True)
        raise SystemExit(1) from error


if __name__ == "__main__":
    main()
