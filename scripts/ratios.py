"""How fast arm_lens is beside what it replaces, release by release.

    OMP_NUM_THREADS=1 python scripts/bench_selection.py --out DIR --only speed end_to_end overhead shortcuts
    OMP_NUM_THREADS=1 python scripts/bench_attribution.py --out DIR
    python scripts/ratios.py add 0.2.0 DIR   # the ratios of DIR into docs/ratios.csv
    python scripts/ratios.py compare         # the two latest releases; ends with 1 if a ratio has become much smaller

Seconds differ between machines and days; ratios of two times from one run differ much less. Each is the time of the slower
way by that of ours, so that a larger one is better: of the published loop by the replay, of plain passes by steered ones,
of a full pass over the prompts by a measure.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any

import pandas as pd
import typer

TABLE = Path(__file__).resolve().parents[1] / "docs" / "ratios.csv"
KEY = ["benchmark", "what"]
app = typer.Typer(add_completion=False, help=__doc__)


def ratios_in(folder: Path) -> pd.DataFrame:
    """The ratios that the benchmarks in a folder measured: benchmark, what, ratio."""
    files = [path for name in ("selection", "attribution") if (path := folder / f"bench_{name}.json").exists()]
    if not files:
        raise typer.BadParameter(f"{folder} has neither bench_selection.json nor bench_attribution.json")
    found = {name: rows for path in files for name, rows in json.loads(path.read_text(encoding="utf-8")).items()}
    return pd.DataFrame(_ratios(found), columns=[*KEY, "ratio"])


def _ratios(found: dict[str, Any]) -> Iterator[tuple[str, str, float]]:
    for row in found.get("rows", []):
        if row["path"].startswith("replay"):
            where = f"{row['model']}, {row['model_class']}, {row['prompt_tokens']} tokens, {row['masks']} masks"
            yield "replay", f"{row['path']}: {where}", row["speedup_vs_full"]
    for row in found.get("end_to_end", []):
        if "speedup" in row:
            yield "search", row["what"], row["speedup"]
    for row in found.get("overhead", []):
        for name in ("steered", "reading"):
            where = f"{row['model']}, {row['examples']} prompts of {row['prompt_tokens']} tokens"
            yield "overhead", f"{name}: {where}", 1 / row[f"{name}_over_bare"]
    for row in found.get("shortcuts", []):
        yield "shortcuts", f"{row['model']}: {row['what'].partition(':')[0]}", row["times"]
    for row in found.get("measures", []):
        yield "attribution", row["what"], row["full_pass_seconds"] / row["seconds"]


def compared(table: pd.DataFrame, old: str, new: str) -> pd.DataFrame:
    """The ratios of two releases side by side: benchmark, what, old, new, change (new by old); of what both measured.

    Raises:
        typer.BadParameter: if the table has no such release.
    """
    sides = []
    for release in (old, new):
        if release not in set(table["release"]):
            raise typer.BadParameter(
                f"no ratios of {release}; there are those of {', '.join(table['release'].unique())}"
            )
        sides.append(table[table["release"] == release].set_index(KEY)["ratio"])
    both = pd.concat(sides, axis=1, keys=["old", "new"], join="inner")
    return both.assign(change=both["new"] / both["old"]).reset_index()


@app.command()
def add(release: str, folder: Path, table: Path = TABLE) -> None:
    """Add the ratios of a release, in place of those that it has."""
    new = ratios_in(folder).assign(release=release)[["release", *KEY, "ratio"]]
    new["ratio"] = new["ratio"].map(lambda ratio: float(f"{ratio:.4g}"))
    if table.exists():
        known = pd.read_csv(table, dtype={"release": str})
        new = pd.concat([known[known["release"] != release], new])
    new.to_csv(table, index=False)


@app.command()
def compare(
    old: str | None = None,
    new: str | None = None,
    table: Path = TABLE,
    least: Annotated[float, typer.Option(help="The smallest change of a ratio that is let pass.")] = 0.7,
) -> None:
    """Compare two releases, by default the two latest."""
    known = pd.read_csv(table, dtype={"release": str})
    releases = list(known["release"].unique())
    if len(releases) < 2 and not (old and new):
        typer.echo(f"{table.name} has one release only, {', '.join(releases)}")
        return
    both = compared(known, old or releases[-2], new or releases[-1])
    typer.echo(both.to_string(index=False, float_format=lambda one: f"{one:.3g}"))
    if len(worse := both[both["change"] < least]):
        typer.echo(f"\n{len(worse)} of {len(both)} ratios are less than {least:g} of what they were")
        raise typer.Exit(1)


if __name__ == "__main__":
    app()
