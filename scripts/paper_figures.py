"""Every figure of a run folder, for a paper: in one go, at one and at two columns' width, as PDF.

    arm-lens demo --out demo
    python scripts/paper_figures.py demo --study --out figures

``--study`` attributes and compares the heads of the run's reward models first (minutes, kept in ``demo/study``); without it,
or for a folder of ``arm-lens benchmark``, the figures are those of the tables that are there. Beside the figures, a page
``index.html`` shows all of them, and ``figures.tex`` includes each at its size. Figures that are there already are made
again. A figure that has no room in one column is made for two only, which is said.
"""

from __future__ import annotations

import argparse
import html
from pathlib import Path

from tqdm.auto import tqdm

from arm_lens.plots import COLUMN, PAGE, SCREEN, one_browser, save_figure, themed
from arm_lens.run_figures import figures_of_run
from arm_lens.study import study_run

THEMES = {theme.name: theme for theme in (SCREEN, COLUMN, PAGE)}


def main() -> None:
    """Make the figures."""
    options = _options()
    if options.study:
        study_run(options.run, examples=options.examples, standard_error=options.standard_error, progress=True)
    makers = figures_of_run(options.run)
    written: dict[str, list[Path]] = {}
    jobs = [(name, theme) for name in makers for theme in options.themes]
    with one_browser():
        for name, theme in tqdm(jobs, desc="figures", unit="figure"):
            folder = options.out / theme
            folder.mkdir(parents=True, exist_ok=True)
            try:
                with themed(THEMES[theme]):
                    figure = makers[name]()
            except ValueError as refusal:
                if theme != COLUMN.name or "themed(PAGE)" not in str(refusal):
                    raise
                tqdm.write(f"{name}: no room in one column; two only")
                continue
            written.setdefault(name, []).extend(
                save_figure(figure, folder / f"{name}.{suffix}") for suffix in options.formats
            )
    _write_index(options.out, written)
    _write_latex(options.out, written)
    print(f"{sum(map(len, written.values()))} files of {len(written)} figures in {options.out}")


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path, help="the run's folder")
    parser.add_argument("--out", type=Path, default=Path("figures"), help="where to (default: figures)")
    parser.add_argument("--study", action="store_true", help="attribute and compare the run's heads first")
    parser.add_argument("--examples", type=int, default=80, help="items per criterion in the study (default: 80)")
    parser.add_argument("--standard-error", type=float, default=0.01, help="of Shapley values (default: 0.01)")
    parser.add_argument("--themes", nargs="+", choices=THEMES, default=[COLUMN.name, PAGE.name])
    parser.add_argument("--formats", nargs="+", choices=("pdf", "svg", "png", "html"), default=["pdf"])
    return parser.parse_args()


def _write_index(out: Path, written: dict[str, list[Path]]) -> None:
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
    (out / "index.html").write_text("\n".join([head, *parts, "</html>"]), encoding="utf-8")


def _write_latex(out: Path, written: dict[str, list[Path]]) -> None:
    """A figure environment for each PDF, at its own size."""
    lines = []
    for name, paths in written.items():
        for path in paths:
            if path.suffix == ".pdf":
                environment = "figure" if path.parent.name == COLUMN.name else "figure*"
                lines += [
                    rf"\begin{{{environment}}}[t]",
                    rf"  \centering\includegraphics{{{path.relative_to(out).as_posix()}}}",
                    rf"  \caption{{{name}}}",
                    rf"\end{{{environment}}}",
                    "",
                ]
    (out / "figures.tex").write_text("\n".join(lines), encoding="utf-8")


if __name__ == "__main__":
    main()
