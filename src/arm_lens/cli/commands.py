"""The commands. Everything that can be refused cheaply is refused before a model is loaded."""

from __future__ import annotations

import os
import shutil
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.markup import escape

from arm_lens.cli.flags import Asking, Data, KindOfScore, Loading, Question, Reading, Rows, with_flags
from arm_lens.cli.output import errors, finish, resumable, say, show_standings, show_subsets

if TYPE_CHECKING:
    from arm_lens.benchmark import BenchmarkResults
    from arm_lens.judges.generative import GenerativeJudge
    from arm_lens.preferences import Preference

app = typer.Typer(
    help="Activation Reward Models: reward functions read from attention heads.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=False,
)

Model = Annotated[str, typer.Option(help="Hugging Face hub name or local folder; by default the bundled judge model.")]
Saved = Annotated[str, typer.Argument(help="A folder that fit wrote, or owner/name on the hub.")]
SameModel = Annotated[
    str,
    typer.Option(help="Hub name or local folder; by default the one it was fitted on, as class and dtype were then."),
]
UNITS = {
    "log_prob": "log-probability of the right verdict (a coin: -0.693 at most)",
    "two_way": "log-probability of the right one of the two verdicts (a coin: -0.693)",
    "probability": "probability of the right one of the two verdicts (a coin: 0.5)",
    "accuracy": "accuracy on the examples (a coin: 0.5)",
    "margin": "log-odds of the right verdict (a coin: 0)",
}
"""What the search maximises, for its last line."""
Out = Annotated[Path, typer.Option(help="Folder for what is written.")]
ShowPrompt = Annotated[
    bool, typer.Option("--show-prompt", help="Print what the model would read about the first row or item, and stop.")
]
Ray = Annotated[
    str,
    typer.Option(
        help="Run on the Ray cluster at this address (auto, HOST:PORT, ray://HOST:PORT), or local for one here."
    ),
]
AllowKey = Annotated[
    list[str],
    typer.Option(help="NAME=HOST: let the file send the environment variable NAME to HOST as a key. Repeatable."),
]
Force = Annotated[bool, typer.Option("--force", help="Replace what OUT has already.")]


def _version(wanted: bool) -> bool:
    if wanted:
        typer.echo(f"arm-lens {version('arm-lens')}")
        raise typer.Exit
    return wanted


@app.callback()
def _root(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Show the version.")
    ] = False,
) -> None:
    pass


@app.command()
def demo(
    out: Out = Path("demo"),
    seeds: Annotated[int, typer.Option(min=1, help="How many seeds, each with examples of its own.")] = 3,
    test_items: Annotated[int, typer.Option(min=20, help="Held-out items per criterion.")] = 400,
    criterion: Annotated[list[str], typer.Option(help="Only these criteria. Repeatable.")] = [],  # noqa: B006
    pictures: Annotated[
        bool | None, typer.Option(help="Judge pictures too, in OUT/pictures; by default unless --criterion is given.")
    ] = None,
    force: Force = False,
) -> None:
    """Fit and judge every criterion of the bundled models; write results.json, report.html and the reward models.

    Called again with the same folder, an interrupted run continues where it stopped.
    """
    from arm_lens.benchmark import DEMONSTRATION, DEMONSTRATION_IMAGES, BenchmarkConfig, read_config, run_benchmark
    from arm_lens.judge_model import CRITERIA
    from arm_lens.reports import write_report

    _writable(out)
    if unknown := [one for one in criterion if one not in CRITERIA]:
        raise typer.BadParameter(f"--criterion {unknown[0]}: there are {', '.join(CRITERIA)}")
    values = read_config(DEMONSTRATION).model_dump(exclude_unset=True)
    values |= {"samples": seeds, "test_items": test_items}
    for study in values["studies"]:
        study.update({"criteria": criterion} if criterion else {})
    wanted = not criterion if pictures is None else pictures
    if wanted and find_spec("PIL") is None:
        if pictures:
            raise typer.BadParameter("--pictures needs Pillow: pip install 'arm-lens[vision]'")
        say("No pictures: ", "they need Pillow, pip install 'arm-lens[vision]'", to=errors)
        wanted = False
    with resumable(out):
        results = run_benchmark(BenchmarkConfig.model_validate(values), out, force=force, command="arm-lens demo")
    finish(results, out, show_subsets)
    _end(results)
    if wanted:
        config = read_config(DEMONSTRATION_IMAGES)
        config = config.model_copy(update={"test_items": min(test_items, config.test_items or test_items)})
        with resumable(out):
            seen = run_benchmark(config, out / "pictures", force=force, command="arm-lens demo")
        finish(seen, out / "pictures", show_subsets)
        write_report(results, out, others={"Pictures, judged by a model that sees": "pictures/report.html"})
        _end(seen)


@app.command()
@with_flags
def fit(
    data: Annotated[str, typer.Argument(help="Labelled preferences: a file, or hf://owner/name.")],
    out: Out,
    reader: Data,
    loading: Loading,
    question: Question,
    reading: Reading,
    model: Model = "",
    validation: Annotated[
        str, typer.Option(help="Preferences to choose heads on; by default DATA itself, cross-fitted.")
    ] = "",
    validation_split: Annotated[str, typer.Option(help="Which split of VALIDATION to read, if not --split.")] = "",
    criterion: Annotated[str, typer.Option(help="The criterion's name, for the record.")] = "",
    show_prompt: ShowPrompt = False,
    force: Force = False,
) -> None:
    """Fit a reward model to labelled preferences and save it.

    Called again, an interrupted fit continues where it stopped.
    """
    from arm_lens.judges.generative import GenerativeJudge
    from arm_lens.reward.model import ActivationRewardModel
    from arm_lens.selection import selector_of
    from arm_lens.storage import locked

    if validation_split and not validation:
        raise typer.BadParameter(
            f"--validation-split {validation_split} goes with --validation, which may be DATA itself"
        )
    asked, read, chooser = question.options(), reading.options(), selector_of(reading.chooser())
    written = reading.written()
    checkpoint = _checkpoint(out)
    if not show_prompt:
        _writable(out)
        _writable(checkpoint)
        _free(out, "judge.json", force)
    examples = reader.read(data)
    held_out = reader.read(validation, validation_split) if validation else None
    loaded = loading.load(model)
    if show_prompt:
        few_shot = GenerativeJudge.fit(loaded, examples[1:], question=asked, reading=read)
        _print_prompt(few_shot, examples[0])
        return
    with resumable(checkpoint), locked(checkpoint):
        fitted = ActivationRewardModel.fit(
            loaded,
            examples,
            validation=held_out,
            criterion=criterion,
            question=asked,
            reading=read,
            selector=chooser,
            reward=reading.reward,
            injection=written,
            seed=reading.seed,
            checkpoint=checkpoint,
            progress=True,
        )
        _free(out, "judge.json", force)  # still
        fitted.save(out)
        shutil.rmtree(checkpoint, ignore_errors=True)
    assert fitted.selection is not None
    history = fitted.selection.history["reward"]
    say("", f"{len(fitted.heads)} heads: {fitted.heads}")
    say("", f"{UNITS[reading.reward]}, mean over masks: {history.iloc[0]:.3f} -> {history.iloc[-1]:.3f}")
    say("", f"Saved to {out}")


@app.command()
@with_flags
def score(
    reward_model: Saved,
    data: Annotated[str, typer.Argument(help="Prompts and responses: a file, or hf://owner/name.")],
    out: Annotated[
        Path, typer.Option(help="A .jsonl, .json, .csv, .tsv or .parquet file; a run that was stopped goes on in it.")
    ],
    rows: Rows,
    loading: Loading,
    asking: Asking,
    model: SameModel = "",
    score_kind: KindOfScore = None,
) -> None:
    """Write the reward of every response in a file: P(Yes) over the vocabulary, the two-way P(Yes), the logit gap.

    With --score-kind, only that column.
    """
    from arm_lens.reward.scoring import score_file

    _writable(out.parent)
    with resumable(out):
        count = score_file(
            reward_model,
            data,
            out,
            **rows.arguments,
            score_kind=score_kind,
            load=lambda saved: loading.reward_model(saved, model).asking(**vars(asking)),
            options={"model": model, **vars(loading), **vars(asking)},
            progress=True,
        )
    say("", f"{count} rewards in {out}")


@app.command()
@with_flags
def evaluate(
    reward_model: Saved,
    test: Annotated[str, typer.Argument(help="Labelled preferences it was not fitted on.")],
    out: Out,
    examples: Annotated[
        str, typer.Option(help="Labelled preferences for the few-shot prompts: those it was fitted on.")
    ],
    reader: Data,
    loading: Loading,
    asking: Asking,
    model: SameModel = "",
    random_sets: Annotated[int, typer.Option(min=1, help="Random head sets to compare with.")] = 20,
    demonstrations: Annotated[
        int | None, typer.Option(min=0, help="Demonstrations in the few-shot prompt; by default as in the fit.")
    ] = None,
    score_kind: KindOfScore = None,
    allow_overlap: Annotated[
        bool, typer.Option("--allow-overlap", help="Judge what it was fitted on too; the page names these items.")
    ] = False,
    examples_split: Annotated[str, typer.Option(help="Which split of the examples to read, if not --split.")] = "",
    show_prompt: ShowPrompt = False,
    force: Force = False,
) -> None:
    """Judge labelled preferences with a reward model and its controls; write results.json, tables and report.html.

    Pairs are compared by log-odds and single responses judged by the two-way P(Yes), unless --score-kind says otherwise.
    """
    from arm_lens.benchmark import controls_of, judge_preferences
    from arm_lens.storage import locked

    if asking.on_too_long == "skip":
        raise typer.BadParameter("--on-too-long skip: verdicts on all items are compared; use clip, or leave items out")
    if not show_prompt:
        _writable(out)
        _free(out, "results.json", force)
    read_test, read_examples = reader.read(test), reader.read(examples, examples_split)
    fitted = loading.reward_model(reward_model, model).asking(**vars(asking))
    if show_prompt:
        _print_prompt(fitted.judge, read_test[0])
        return
    name = fitted.record.criterion
    controls = controls_of(
        fitted, read_examples, test=read_test, random_sets=random_sets, demonstrations=demonstrations
    )
    results = judge_preferences(
        {"reward_model": fitted, **controls},
        read_test,
        examples=read_examples,
        on_overlap="warn" if allow_overlap else "raise",
        benchmark=name or "test",
        score_kind=score_kind,
        meta={
            "title": f"Reward model: {name or 'unnamed criterion'}",
            "model": fitted.info.name,
            "command": "arm-lens evaluate",
            "judge_names": {"reward_model": "Reward model"},
        },
    )
    with locked(out):
        _free(out, "results.json", force)  # still
        results.save(out)
        finish(results, out, show_standings)


@app.command()
def benchmark(
    config: Annotated[
        str,
        typer.Argument(
            help="A YAML file; or demo (the bundled model), images (the bundled judge that sees), real (SmolLM2 on public "
            "data), or real-full (the same, hours)."
        ),
    ],
    out: Out = Path("benchmark"),
    data: Annotated[
        Path | None, typer.Option(help="The folder from which CONFIG's paths of data start, instead of its own.")
    ] = None,
    model: Annotated[str, typer.Option(help="Hub name, folder or GGUF file, instead of CONFIG's model.")] = "",
    workers: Annotated[int | None, typer.Option(min=1, help="Processes, instead of the file's.")] = None,
    ray: Ray = "",
    allow_key: AllowKey = [],  # noqa: B006
    images: Annotated[
        bool, typer.Option(help="Write the figures as PNG and SVG too, where there is a Chromium.")
    ] = True,
    show_prompt: ShowPrompt = False,
    force: Force = False,
) -> None:
    """Run judges side by side; write results.json, items.parquet, tables, figures and report.html.

    Called again with the same folder, an interrupted run continues where it stopped.
    """
    from arm_lens.benchmark import (
        DEMO,
        IMAGES,
        REAL,
        REAL_FULL,
        check_files,
        prompts_of,
        read_config,
        real_model,
        run_benchmark,
    )
    from arm_lens.reports import save_figures

    check_place(workers, ray)
    if not show_prompt:
        _writable(out)
    own = {"demo": DEMO, "images": IMAGES, "real": REAL, "real-full": REAL_FULL}
    if config not in own and not Path(config).exists():
        raise FileNotFoundError(f"there is no file {config}; configurations with a name are {', '.join(own)}")
    real = config.startswith("real") and config in own
    if real and data is None:
        data = Path("data")
    settings = read_config(own.get(config, Path(config)), allow_keys=allow_key, data=data)
    if workers is not None:
        settings = settings.model_copy(update={"workers": workers})
    check_files(settings)
    if model or real:
        settings = settings.model_copy(update={"model": model or str(real_model())})
    if show_prompt:
        for shown in prompts_of(settings):
            say(f"[bold]{escape(shown.task)}:[/] ", ", ".join(shown.judges))
            say("", "no model is asked" if shown.text is None else shown.text)
        return
    with resumable(out):
        results = run_benchmark(settings, out, force=force, ray=ray or None)
    finish(results, out, show_standings)
    if images:
        try:
            save_figures(results, out / "figures")
        except RuntimeError as error:
            say("No images: ", error, to=errors)
    _end(results)


def check_place(workers: int | None, ray: str) -> None:
    """Refuse two places to run parts in."""
    if ray and workers is not None:
        raise typer.BadParameter("--workers is for processes of this machine; give one of --workers and --ray")


def _end(results: BenchmarkResults) -> None:
    """End with an error if parts are missing; which ones, `finish` has printed."""
    if len(results.missing):
        raise typer.Exit(1)


def _print_prompt(judge: GenerativeJudge, example: Preference) -> None:
    """Print the question about an example as the model reads it, and the tokens that are read as its verdict."""
    say("", judge.prompt_of(example))


def _free(folder: Path, name: str, force: bool) -> None:
    """Refuse to write over something that was saved."""
    if (folder / name).exists() and not force:
        raise FileExistsError(
            17, f"has a {name} already; choose another --out, or replace it with --force", str(folder)
        )


def _checkpoint(out: Path) -> Path:
    """The folder next to OUT in which an unfinished fit is stored."""
    out = Path(os.path.abspath(out))
    if not out.name:
        raise typer.BadParameter(f"--out {out}: name a folder within it")
    return out.with_name(f"{out.name}.unfinished")


def _writable(folder: Path) -> None:
    """Check that a folder can be made and written to, without making it.

    Raises:
        NotADirectoryError: if it, or a folder above it, is a file.
        PermissionError: if it may not be written to.
    """
    nearest = folder.absolute()
    while not nearest.exists():
        nearest = nearest.parent
    if not nearest.is_dir():
        raise NotADirectoryError(20, "is a file, not a folder", str(nearest))
    if not os.access(nearest, os.W_OK | os.X_OK):
        raise PermissionError(13, "may not be written to", str(nearest))
