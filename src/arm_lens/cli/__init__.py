"""The command line: thin commands over the library.

arm-lens demo       the bundled judge model, eight criteria, five judges, one report
arm-lens fit        a reward model from labelled preferences, on any model
arm-lens score      rewards for prompts and responses in a file
arm-lens evaluate   a fitted reward model beside its controls, on labelled preferences
arm-lens benchmark  every judge side by side, under a configuration
arm-lens sweep      the same over models, selectors, layers and other options, here or on a cluster
arm-lens serve      saved reward models behind HTTP

What the library is for is imported by the commands when they run, so that ``arm-lens --help`` is quick.
"""

from __future__ import annotations

import io
import os
import sys
import warnings

# The library's progress bars are enough; Hugging Face's own would be one for each file of a model.
os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")

from arm_lens.cli.commands import app
from arm_lens.cli.output import errors, say
from arm_lens.cli.serve import serve
from arm_lens.cli.spelling import OPTIONS, as_fields, as_options
from arm_lens.cli.sweep import sweep

__all__ = ["app", "main"]

app.command()(serve)
app.command()(sweep)

USERS_ERRORS = (ValueError, OSError, ImportError, ArithmeticError)
"""What goes wrong by what was given. Any other exception is a defect of arm_lens, and is shown with its traceback."""


def main() -> None:
    """Run the command line, with errors and warnings in one line and without a traceback."""
    spelled = as_fields if sys.argv[1:2] in (["benchmark"], ["sweep"]) else as_options
    warnings.showwarning = lambda message, *_: say("[yellow]Warning:[/] ", spelled(str(message)), to=errors)
    _prepare_streams()
    try:
        app()
    except (*USERS_ERRORS, RuntimeError) as error:
        if isinstance(error, RuntimeError) and not _is_a_users(error):
            raise
        say("[bold red]Error:[/] ", spelled(_text(error)), to=errors)
        for note in getattr(error, "__notes__", ()):  # what is not lost
            say("", spelled(note), to=errors)
        sys.exit(1)


def _prepare_streams() -> None:
    """See to it that no run ends because of what is printed: a character that the encoding lacks, a stream that is closed."""
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if stream is None:
            setattr(sys, name, open(os.devnull, "w"))  # noqa: SIM115  # until the process ends
        elif isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def _text(error: BaseException) -> str:
    """An error's message; that of an operating system error names the file, one about options the option."""
    from pydantic import ValidationError

    if isinstance(error, ValidationError):
        found = ((".".join(map(str, one["loc"])), one["msg"]) for one in error.errors(include_url=False))
        return "; ".join(f"{OPTIONS.get(name, name)}: {said.removeprefix('Value error, ')}" for name, said in found)
    if isinstance(error, OSError) and error.strerror:
        return f"{error.filename}: {error.strerror}" if error.filename else error.strerror
    return str(error)


def _is_a_users(error: RuntimeError) -> bool:
    from arm_lens.judges.endpoint.errors import EndpointError
    from arm_lens.storage import StoreBusyError

    return isinstance(error, (EndpointError, StoreBusyError))
