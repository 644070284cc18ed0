r"""Every figure of a run folder, for a paper: in one go, at one and at two columns' width, as PDF.

    arm-lens demo --out demo
    python scripts/paper_figures.py demo --study --out figures

The folder is one of ``arm-lens demo``, of ``arm-lens benchmark``, or of a study of heads alone. ``--study`` attributes and
compares the heads of a demo's reward models first (minutes, kept in ``demo/study``); without it the figures are those of
the tables that are there. In the output folder,

- ``column/NAME.pdf``, ``page/NAME.pdf`` are the figures for one and for two columns (and ``screen/``, if asked for);
- ``index.html`` is a page that links to all of them, and shows those that are PNG or SVG;
- ``figures.tex`` has a figure environment for each PDF, which includes it unscaled: to copy from, or to ``\input`` from
  that folder.

Figures that are there already are made again. A figure that has no room in a layout is left out there, which is said.
One that fails is left out; the others are made, the failures are told at the end, and the exit status is 1.
"""

from __future__ import annotations

import argparse
import html
import sys
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from pathlib import Path

import plotly.graph_objects as go
from tqdm.auto import tqdm

from arm_lens.plots import COLUMN, PAGE, SCREEN, NoRoomError, one_browser, save_figure, themed
from arm_lens.reports.figures import figures_of_run
from arm_lens.storage import write_text
from arm_lens.study import study_run
from arm_lens.study.parts import file_names

THEMES = {theme.name: theme for theme in (SCREEN, COLUMN, PAGE)}
Written = dict[str, list[Path]]


def main() -> int:
    """Make the figures; gives the exit status."""
    options = _options()
    try:
        if options.study:
            study_run(options.run, examples=options.examples, standard_error=options.standard_error, progress=True)
        makers = figures_of_run(options.run)
    except (FileNotFoundError, ValueError) as refusal:
        print(refusal, file=sys.stderr)
        return 1
    written, failures = make_figures(makers, options.out, options.themes, options.formats)
    write_index(options.out, written)
    write_latex(options.out, written)
    print(f"{sum(map(len, written.values()))} files of {len(written)} figures in {options.out}")
    for failure in failures:
        print(f"failed: {failure}", file=sys.stderr)
    return 1 if failures else 0


def make_figures(
    makers: dict[str, Callable[[], go.Figure]], out: Path, themes: Sequence[str], formats: Sequence[str]
) -> tuple[Written, list[str]]:
    """Draw and write every figure for every theme: the files of each, and what went wrong."""
    written: Written = {}
    failures: list[str] = []
    files = file_names(list(makers), most=120)
    for theme in themes:
        (out / theme).mkdir(parents=True, exist_ok=True)
    with one_browser() if set(formats) - {"html"} else nullcontext():
        for name, theme in tqdm([(name, theme) for name in makers for theme in themes], desc="figures", unit="figure"):
            try:
                with themed(THEMES[theme]):
                    figure = makers[name]()
                for suffix in formats:
                    path = save_figure(figure, out / theme / f"{files[name]}.{suffix}")
                    written.setdefault(name, []).append(path)
            except Exception as error:  # a broken table must not cost the other figures
                if isinstance(error, NoRoomError):
                    tqdm.write(f"{name}: no room in the layout {theme!r}", file=sys.stderr)
                else:
                    failures.append(f"{name} ({theme}): {type(error).__name__}: {error}")
    return written, failures


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path, help="the run's folder")
    parser.add_argument("--out", type=Path, default=Path("figures"), help="where to (default: figures)")
    parser.add_argument("--study", action="store_true", help="attribute and compare the run's heads first")
    parser.add_argument(
        "--examples", type=int, default=80, help="items per criterion in the study, at most (default: 80)"
    )
    parser.add_argument("--standard-error", type=float, default=0.01, help="of Shapley values (default: 0.01)")
    parser.add_argument("--themes", nargs="+", choices=THEMES, default=[COLUMN.name, PAGE.name])
    parser.add_argument("--formats", nargs="+", choices=("pdf", "svg", "png", "html"), default=["pdf"])
    return parser.parse_args()


def write_index(out: Path, written: Written) -> None:
    """One page that shows every figure, or links to it where a browser cannot show it in a page."""
    parts = []
    for name, paths in written.items():
        parts.append(f"<h2>{html.escape(name)}</h2>")
        for path in paths:
            where = html.escape(path.relative_to(out).as_posix())
            shown = f'<img src="{where}" alt="{html.escape(name)}">' if path.suffix in (".png", ".svg") else where
            parts.append(f'<p><a href="{where}">{shown}</a></p>')
    style = "body{font:16px sans-serif;margin:2em;max-width:70em} img{max-width:100%;border:1px solid #ddd}"
    head = f'<!doctype html><html lang="en"><meta charset="utf-8"><title>Figures</title><style>{style}</style>'
    write_text(out / "index.html", "\n".join([head, *parts, "</html>"]))


def write_latex(out: Path, written: Written) -> None:
    """A figure environment for each PDF, at its own size."""
    lines = []
    for name, paths in written.items():
        for path in paths:
            if path.suffix == ".pdf":
                environment = "figure" if path.parent.name == COLUMN.name else "figure*"
                lines += [
                    rf"\begin{{{environment}}}[t]",
                    rf"  \centering\includegraphics{{{path.relative_to(out).as_posix()}}}",
                    rf"  \caption{{{latex(name)}}}",
                    rf"\end{{{environment}}}",
                    "",
                ]
    write_text(out / "figures.tex", "\n".join(lines))


LATEX = {"\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}"}
LATEX |= {character: f"\\{character}" for character in "&%$#_{}"}


def latex(text: str) -> str:
    """Text that LaTeX sets as it is."""
    return "".join(LATEX.get(character, character) for character in text)


if __name__ == "__main__":
    sys.exit(main())
