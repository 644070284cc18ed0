"""The command line: cheap checks first, nothing overwritten unasked, interrupted work kept, errors in its own language."""

from __future__ import annotations

import json
import os
import resource
import signal
import stat
import subprocess
import sys
import time
import warnings
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner

from arm_lens.cli import app, main
from arm_lens.cli.spelling import OPTIONS, as_fields, as_options
from arm_lens.judge_model import labelled_responses
from arm_lens.preferences import read_preferences, write_preferences
from arm_lens.storage import locked

ARM_LENS = [sys.executable, "-c", "import sys; from arm_lens.cli import main; sys.argv[0] = 'arm-lens'; main()"]
QUICK = ("--readings", "4", "--demonstrations", "2", "--selector-option", "steps=40", "--selector-option", "masks=8")


def arm_lens(*arguments, **options):
    """A finished process of the command, with its output as text."""
    command = [*ARM_LENS, *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=300, **options)


def here(*arguments):
    """What the command prints, run in this process: what it imports need not be imported again."""
    done = CliRunner().invoke(app, [*map(str, arguments)], catch_exceptions=False)
    assert done.exit_code == 0, done.output
    return done.stdout


@pytest.fixture
def refused(monkeypatch, capfd):
    """What the command says when it refuses: no traceback, nothing on standard output."""

    def run(*arguments):
        monkeypatch.setattr(sys, "argv", ["arm-lens", *map(str, arguments)])
        monkeypatch.setattr(warnings, "showwarning", warnings.showwarning)
        with pytest.raises(SystemExit) as ended:
            main()
        out, err = capfd.readouterr()
        said = " ".join(err.replace("│", " ").split())
        assert ended.value.code in (1, 2) and "Traceback" not in said and not out
        return said

    return run


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    folder = tmp_path_factory.mktemp("data")
    write_preferences(labelled_responses("polite", 16, split="train", seed=0), folder / "train.jsonl")
    write_preferences(labelled_responses("polite", 8, split="test", seed=1), folder / "test.jsonl")
    return folder


def artefact(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.suffix in (".json", ".safetensors")}


# Quick to open


@pytest.mark.parametrize("module", ["arm_lens", "arm_lens.cli"])
def test_importing_it_imports_no_heavy_library(module):
    code = (
        f"import sys, {module}; print([n for n in ('torch', 'transformers', 'pandas', 'plotly') if n in sys.modules])"
    )
    assert subprocess.check_output([sys.executable, "-c", code], text=True).strip() == "[]"


def processor_seconds():
    """Of the processes that have ended, which a busy machine does not change."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def test_help_and_version_are_there_at_once():
    before = processor_seconds()
    help_, version = arm_lens("--help"), arm_lens("--version")
    assert processor_seconds() - before < 3, "two commands"
    assert all(name in help_.stdout for name in ("demo", "fit", "score", "evaluate", "benchmark"))
    assert version.stdout.startswith("arm-lens ") and version.returncode == 0


# Errors in the language of the door


@pytest.mark.parametrize(
    ("python", "typed"),
    [
        ("pass split=... to choose one", "pass --split ... to choose one"),
        (
            "columns={..., 'winner': 'pick'}, winner={'A>B': 'A', 'A=B': 'tie'}",
            "--column winner=pick, --winner 'A>B=A' --winner A=B=tie",
        ),
        ("labels={'joy': ...} with True, False or 'drop'", "--label joy=... with yes, no or drop"),
        ("such as labels='>= 4'.", "such as --label '>= 4'."),
        ('chat_template_kwargs={"enable_thinking": False}, or', "--chat-template-kwarg enable_thinking=no, or"),
        ("use dtype=torch.float32 (in", "use --dtype float32 (in"),
        ("pass on_overlap='warn' to judge them", "pass --allow-overlap to judge them"),
        ("name another folder, or pass force=True to replace", "name another folder, or pass --force to replace"),
        ("label = 1, prompt={x}, a=b", "label = 1, prompt={x}, a=b"),
    ],
)  # fmt: skip
def test_arguments_of_the_library_are_spelled_as_options(python, typed):
    assert as_options(python) == typed


@pytest.mark.parametrize(
    ("python", "written"),
    [
        ("pass on_error='skip' to leave these rows out", "pass on_error: skip to leave these rows out"),
        ("labels={'joy': True, 'no joy': 'drop'}", "labels: {joy: yes, no joy: drop}"),
        ("such as labels='>= 4'.", "such as labels: '>= 4'."),
        ("or pass force=True to replace", "or pass --force to replace"),
    ],
)
def test_and_in_a_benchmark_as_the_fields_of_its_configuration(python, written):
    assert as_fields(python) == written


def test_options_in_errors_are_options_of_a_command():
    commands = typer.main.get_command(app).commands.values()
    assert {*OPTIONS.values()} <= {option for command in commands for one in command.params for option in one.opts}


@pytest.mark.parametrize("name", OPTIONS)
def test_whatever_follows_an_argument_the_text_around_it_stays(name):
    for value in ("...", "3", "'a b'", "{'a': 1}", "{", "[1, {2: 3}]", "x.y", "True", '"'):
        text = as_options(f"before {name}={value}, after")
        assert text.startswith("before ") and text.endswith(", after")


# Cheap checks first; the model's folder does not exist, and is never missed


@pytest.mark.parametrize(
    ("data", "options", "said"),
    [
        ("train.jsonl", ("--label", "joy"), "--label joy: write NAME=VALUE"),
        ("train.jsonl", ("--label", "joy=perhaps"), "joy=yes, joy=no or joy=drop"),
        ("train.jsonl", ("--column", "prompt=a", "--column", "prompt=b"), "prompt is given twice"),
        ("train.jsonl", ("--selector", "nope"), "no selector 'nope'"),
        ("train.jsonl", ("--selector-option", "stps=3"), "no option 'stps'"),
        ("train.jsonl", ("--template", "{folder}/train.jsonl"), "not valid JSON"),
        ("train.jsonl", ("--template", "{folder}/deep.json"), "deep.json is not valid JSON: it is nested"),
        ("train.jsonl", ("--template", "/dev/zero"), "/dev/zero is a folder, a pipe or a device"),
        ("train.jsonl", ("--template", "{folder}"), "is a folder, a pipe or a device"),
        ("train.jsonl", ("--template", "{folder}/field.json"), "the template's 'scaler': "),
        ("train.jsonl", ("--template", "{folder}/type.json"), "the template's 'scalar': "),
        ("train.jsonl", ("--template", "{folder}/letters.json"), "the template's 'yes': "),
        ("train.jsonl", ("--seed", "99999999999999999999"), "'--seed'"),
        ("train.jsonl", ("--strength", "nan"), "strength is a finite number, not nan"),
        ("train.jsonl", ("--selector-option", "learning_rate=NaN"), "learning_rate"),
        ("train.jsonl", ("--chat-template-kwarg", "tokenize=yes"), "--chat-template-kwarg: 'tokenize' is decided"),
        ("train.jsonl", ("--out", "/"), "--out /: name a folder within it"),
        ("missing.jsonl", (), "missing.jsonl: no such file"),
        ("words.jsonl", (), "--label joy=... --label anger=..."),
        ("broken.jsonl", (), "broken.jsonl, row 2"),
    ],
)
def test_wrong_options_and_data_are_refused_before_a_model_is_loaded(refused, files, tmp_path, data, options, said):
    (files / "words.jsonl").write_text('{"text": "a", "label": "joy"}\n{"text": "b", "label": "anger"}\n')
    (files / "deep.json").write_text("[" * 100_000)
    for name, fields in (("field", {"scaler": "x"}), ("type", {"scalar": 5}), ("letters", {"yes": "Yes"})):
        (files / f"{name}.json").write_text(json.dumps(fields))
    (files / "broken.jsonl").write_text('{"text": "a", "label": true}\n{"text": "b", "la\n')
    options = [one.format(folder=files) for one in options]
    found = refused("fit", files / data, "--out", tmp_path / "out", "--model", tmp_path / "no model", *options)
    assert said in found and "pydantic" not in found
    assert not (tmp_path / "out").exists()


def test_an_output_that_is_a_file_is_refused(refused, files, tmp_path):
    (tmp_path / "taken").write_text("mine")
    found = refused("fit", files / "train.jsonl", "--out", tmp_path / "taken" / "out", "--model", tmp_path / "no model")
    assert "taken: is a file, not a folder" in found
    assert (tmp_path / "taken").read_text() == "mine"


def test_an_unfinished_fit_needs_a_folder_of_its_own_and_one_process(refused, files, tmp_path):
    fit = ("fit", files / "train.jsonl", "--out", tmp_path / "out")
    (tmp_path / "out.unfinished").write_text("mine")
    assert "out.unfinished: is a file, not a folder" in refused(*fit, "--model", tmp_path / "no model")
    (tmp_path / "out.unfinished").unlink()
    with locked(tmp_path / "out.unfinished"):
        assert "another process is writing to" in refused(*fit, *QUICK)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("device", ["nope", "cuda:99"])
def test_a_device_that_is_not_there_is_named(refused, files, tmp_path, device):
    found = refused("fit", files / "train.jsonl", "--out", tmp_path / "out", "--device", device)
    assert f"there is no device '{device}'" in found and "--device cpu" in found


def test_a_criterion_of_the_demonstration_that_is_none_is_refused(refused, tmp_path):
    found = refused("demo", "--criterion", "nice", "--out", tmp_path / "out")
    assert "--criterion nice: there are answers, safe" in found and "pydantic" not in found


def test_brackets_and_control_characters_of_strangers_are_printed_as_text(refused, tmp_path):
    (tmp_path / "x.jsonl").write_text(json.dumps({"[bold red]p[/bold red]\x1b[2J": "q", "response": "r"}) + "\n")
    found = refused("fit", tmp_path / "x.jsonl", "--out", tmp_path / "out")
    assert "[bold red]p[/bold red]" in found and "\x1b[2J" not in found


# A fit: what it wrote is not overwritten unasked, is readable by others, and goes on after Ctrl-C


@pytest.fixture(scope="module")
def fitted(files):
    out = files / "polite"
    here("fit", files / "train.jsonl", "--out", out, "--criterion", "polite", *QUICK)
    return out


@pytest.mark.slow
def test_a_saved_judge_is_replaced_only_by_force(refused, files, fitted, tmp_path):
    before = artefact(fitted)
    other = ("fit", files / "test.jsonl", "--out", fitted, "--criterion", "polite", *QUICK)
    found = refused(*other, "--model", tmp_path / "no model")
    assert "has a judge.json already" in found and "--force" in found
    assert artefact(fitted) == before
    (fitted / "judge.json").write_text("another's")
    here(*other[:1], files / "train.jsonl", *other[2:], "--force")
    assert artefact(fitted) == before  # the same data and options: the same bytes


@pytest.mark.slow
@pytest.mark.skipif(os.name != "posix", reason="modes are POSIX's")
def test_files_are_readable_by_others_as_the_umask_says(fitted):
    umask = os.umask(0)
    os.umask(umask)
    for path in fitted.iterdir():
        if path.suffix in (".json", ".safetensors"):
            assert stat.S_IMODE(path.stat().st_mode) == 0o666 & ~umask, path


@pytest.mark.slow
def test_an_interrupted_fit_says_what_it_kept_and_goes_on_to_the_same_bytes(files, fitted, tmp_path):
    out = tmp_path / "polite"
    command = [*ARM_LENS, "fit", str(files / "train.jsonl"), "--out", str(out), "--criterion", "polite", *QUICK]
    checkpoint = tmp_path / "polite.unfinished"
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    while process.poll() is None and not any(checkpoint.glob("**/*.safetensors")):
        time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    said = " ".join(process.communicate(timeout=120)[1].split())
    assert process.returncode == 130, said
    assert "polite.unfinished" in said and "continues from there" in said and "Traceback" not in said
    assert not out.exists()
    here(*command[len(ARM_LENS) :])
    assert artefact(out) == artefact(fitted) and not checkpoint.exists()


@pytest.mark.slow
def test_show_prompt_prints_what_is_read_and_writes_nothing(files, tmp_path):
    found = here(
        "fit", files / "train.jsonl", "--out", tmp_path / "out", "--demonstrations", 2, "--criterion-text",
        "the reply is polite.", "--show-prompt",
    )  # fmt: skip
    first = read_preferences(files / "train.jsonl")[0]
    assert "".join(first.response.lower().split()) in "".join(found.split())
    assert found.partition(" tokens; ")[0].count("verdict:") == 3
    assert "the reply is polite." in found and "'yes' against 'no'" in found
    assert not (tmp_path / "out").exists()


@pytest.mark.slow
def test_what_fit_is_told_is_what_it_does(files, tmp_path):
    here(
        "fit", files / "train.jsonl", "--out", tmp_path / "out", "--criterion", "kind",
        "--criterion-text", "the reply is polite.",
        "--selector", "top_effect", "--selector-option", "k=2", "--reward", "two_way",
        "--injection", "add", "--strength", "0.5",
        "--denoise", "--readings", "5", "--demonstrations", "3", "--folds", "3", "--seed", "7", "--limit", "12",
    )  # fmt: skip
    record = json.loads((tmp_path / "out" / "judge.json").read_text())
    fit = record["fit"]
    assert len(record["heads"]) == 2 and record["injection"] == {"mode": "add", "strength": 0.5}
    assert record["question"]["criterion_text"] == "the reply is polite." and fit["criterion"] == "kind"
    assert (fit["readings"], fit["demonstrations"], fit["folds"], fit["seed"], fit["n_read"]) == (5, 3, 3, 7, 12)
    assert fit["reward"] == "two_way" and fit["denoise"] is not None and fit["search"]["kind"] == "top_effect"
    shown = here(
        "evaluate", tmp_path / "out", files / "test.jsonl", "--examples", files / "train.jsonl", "--out", tmp_path / "ev",
        "--show-prompt",
    )  # fmt: skip
    assert "the reply is polite." in shown and not (tmp_path / "ev").exists()


def test_options_that_would_do_nothing_are_refused(refused, files, tmp_path):
    here("fit", files / "train.jsonl", "--out", tmp_path / "judge", "--selector", "top_effect", "--readings", 4)
    for option, value in (("--dtype", "float64"), ("--model-class", "HookedTransformer")):
        said = refused("score", tmp_path / "judge", files / "test.jsonl", "--out", tmp_path / "x.csv", option, value)
        assert f"{option} {value} goes with --model" in said
    said = refused("fit", files / "train.jsonl", "--out", tmp_path / "other", "--validation-split", "dev")
    assert "--validation-split dev goes with --validation" in said
