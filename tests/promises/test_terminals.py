"""What is printed: nothing of a stranger's rules the terminal, no number is cut, and no run ends because of it."""

from __future__ import annotations

import base64
import io
import sys
import warnings

import pytest
from rich.console import Console

from arm_lens.benchmark import judge_preferences
from arm_lens.cli import main, output
from arm_lens.judge_model import labelled_responses
from arm_lens.judges.controls import LengthJudge
from arm_lens.preferences.images import as_image

EVIL = "a\x1b[2J\x9b\u202e[bold]b"


@pytest.fixture(scope="module")
def results():
    test = labelled_responses("polite", 6, split="test", seed=0)
    return judge_preferences({EVIL: LengthJudge(), "other": LengthJudge()}, test, benchmark=EVIL)


@pytest.fixture
def printed(monkeypatch):
    def run(show, results, width=100):
        monkeypatch.setattr(output, "console", Console(file=io.StringIO(), width=width, emoji=False))
        show(results)
        return output.console.file.getvalue()

    return run


@pytest.mark.parametrize("show", [output.show_standings, output.show_subsets])
def test_names_of_strangers_are_printed_as_text(results, printed, show):
    found = printed(show, results)
    assert r"\x1b[2J" in found and "[bold]" in found
    assert not {"\x1b", "\x9b", "\u202e"} & set(found)


@pytest.mark.parametrize("show", [output.show_standings, output.show_subsets])
def test_no_number_is_cut_in_a_narrow_terminal(results, printed, show):
    numbers = {one for one in printed(show, results).replace("│", " ").split() if one.startswith(("0.", "1."))}
    assert numbers and all(number in printed(show, results, width=12) for number in numbers)


def failing(error):
    def app():
        raise error

    return app


def test_a_character_that_the_terminal_lacks_ends_no_run(monkeypatch):
    monkeypatch.setattr("arm_lens.cli.app", failing(ValueError("über ✓")))
    monkeypatch.setattr(warnings, "showwarning", warnings.showwarning)
    written = io.BytesIO()
    monkeypatch.setattr(sys, "stderr", io.TextIOWrapper(written, encoding="ascii"))
    with pytest.raises(SystemExit):
        main()
    sys.stderr.flush()
    assert written.getvalue().split(b"Error: ")[1].strip() == rb"\xfcber \u2713"


@pytest.mark.parametrize("name", ["stdout", "stderr"])
def test_a_closed_stream_ends_no_run(monkeypatch, name):
    done = []
    monkeypatch.setattr(sys, name, None)
    monkeypatch.setattr("arm_lens.cli.app", lambda: done.append(getattr(sys, name).write("x")))
    monkeypatch.setattr(warnings, "showwarning", warnings.showwarning)
    main()
    assert done == [1]


def test_an_error_says_what_is_not_lost(monkeypatch, capfd):
    error = ValueError("the endpoint is gone")
    error.add_note("5 of 12 answers are kept in [x]/answers")
    monkeypatch.setattr("arm_lens.cli.app", failing(error))
    monkeypatch.setattr(warnings, "showwarning", warnings.showwarning)
    with pytest.raises(SystemExit):
        main()
    assert "answers are kept in [x]/answers" in " ".join(capfd.readouterr().err.split())


def test_an_image_in_a_text_is_described():
    console = Console(file=io.StringIO(), width=100)
    image = as_image(base64.b64decode("R0lGODlhAQABAIAAAAAAAP///yH5BAEAAAAALAAAAAABAAEAAAIBRAA7"))
    output.say("prompt ", f"{image.mark}\nWhat is it?", to=console)
    assert console.file.getvalue() == f"prompt [image {image.digest[:8]}, 1 x 1]\nWhat is it?\n"
