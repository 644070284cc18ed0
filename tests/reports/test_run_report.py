"""The report tells what the tables tell, opens offline, and lets no data run as code."""

from __future__ import annotations

import json
import re
import subprocess
from html.parser import HTMLParser
from pathlib import Path

import pandas as pd
import pytest
from plots.synthetic_results import make_heads, make_history, make_items, make_results, make_rows

from arm_lens.reports.run import write_report

HOSTILE = ("</script><script>alert(1)</script>", "<img src=x onerror=alert(1)>", "{{ 7 * 7 }} & <b>\u2028$x$</b>")
FIGURES = {"accuracy", "rewards", "selected", "probabilities", "reward_curve", "heads_curve"}
TRAP = 'window.alert = () => document.documentElement.setAttribute("data-alerted", "1")'
META = {
    "title": "A run",
    "model": "tiny",
    "date": "2025-01-02",
    "seeds": [0, 1],
    "demonstrations": 8,
    "runtime_seconds": 75.2,
    "versions": {"torch": "2.9"},
    "command": "arm-lens demo --out <folder>",
    "notes": ["One note."],
    "criteria": {"safe": "gives no harmful advice"},
}


class Page(HTMLParser):
    """The elements of a page, the text of each kind, and the rows of its results table."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.open: list[str] = []
        self.scripts: list[str] = []
        self.text = ""
        self.rows: list[list[str]] = []
        self.feed(path.read_text(encoding="utf-8"))

    def handle_starttag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))
        self.open.append(tag)
        if tag == "tr":
            self.rows.append([])
        if tag in ("td", "th"):
            self.rows[-1].append("")

    def handle_endtag(self, tag):
        while self.open and self.open.pop() != tag:
            pass

    def handle_data(self, data):
        if self.open and self.open[-1] == "script":
            self.scripts.append(data)
        elif not self.open or self.open[-1] != "style":
            self.text += data
            if self.rows and self.rows[-1] and "tr" in self.open:
                self.rows[-1][-1] += " " + data

    def section(self, name: str) -> bool:
        return any(tag == "section" and attributes.get("id") == name for tag, attributes in self.elements)

    def row(self, heading: str) -> list[str]:
        return next(row for row in self.rows if row and " ".join(row[0].split()).startswith(heading))


@pytest.fixture(scope="module")
def results() -> dict[str, pd.DataFrame]:
    return make_results(("safe", "polite"), (0, 1), n=60, n_layers=3, n_heads=4)


@pytest.fixture(scope="module")
def page(results, tmp_path_factory) -> Page:
    return Page(write_report(tmp_path_factory.mktemp("report") / "report.html", meta=META, **results))


def test_the_table_holds_the_means_over_seeds(page, results):
    rows = results["rows"]
    for criterion in ("safe", "polite"):
        for column, method in enumerate(("zero_shot", "few_shot", "all_heads", "random_heads", "reinforce"), start=1):
            chosen = rows[(rows["criterion"] == criterion) & (rows["method"] == method)]
            cell = page.row(criterion)[column].split()
            assert cell == [f"{chosen[c].mean():.3f}" for c in ("accuracy", "ci_low")] + ["to", cell[-1]]
            assert cell[-1] == f"{chosen['ci_high'].mean():.3f}"


def test_the_headline_is_the_mean_over_criteria_and_seeds(page, results):
    rows = results["rows"]
    mean = rows[rows["method"] == "reinforce"]["accuracy"].mean()  # as many rows for each criterion
    headline = " ".join(page.text.split())
    assert f"Selected heads (REINFORCE) : mean accuracy {mean:.3f}" in headline.replace(") :", ") :").replace(
        "):", ") :"
    )
    assert f"{rows[rows['method'] == 'few_shot']['accuracy'].mean():.3f} for few-shot (8 in prompt)" in headline
    assert page.row("Mean over criteria")[5].split()[0] == f"{mean:.3f}"


def test_the_mean_over_criteria_is_narrower_than_each(page):
    def width(heading: str) -> float:
        _, low, _, high = page.row(heading)[1].split()
        return float(high) - float(low)

    assert width("Mean over criteria") == pytest.approx(
        (width("safe") ** 2 + width("polite") ** 2) ** 0.5 / 2, abs=0.004
    )


def test_every_figure_has_its_place_and_its_data(page):
    places = {attributes["data-figure"] for _, attributes in page.elements if "data-figure" in attributes}
    data = next(json.loads(script) for script in page.scripts if script.startswith('{"accuracy"'))
    assert places == set(data) == FIGURES
    assert all(figure["data"] for figure in data.values())


def test_nothing_is_fetched(page):
    for tag, attributes in page.elements:
        assert not {"src", "href", "srcset", "action", "data"} & set(attributes), (tag, attributes)
        assert tag not in ("link", "iframe", "object", "embed", "base")
    policy = next(a["content"] for t, a in page.elements if t == "meta" and "http-equiv" in a)
    assert policy.startswith("default-src 'none'") and "http" not in policy


def test_facts_are_told_and_missing_ones_left_out(page, results, tmp_path):
    for fact in (
        "tiny",
        "2025-01-02",
        "0, 1",
        "1 min 15 s",
        "torch 2.9",
        "arm-lens demo --out <folder>",
        "One note.",
        "no harmful advice",
    ):
        assert fact in page.text
    bare = Page(write_report(tmp_path / "bare.html", meta={}, **results))
    assert "Running time" not in bare.text and "None" not in bare.text and "Few-shot (in prompt)" in bare.text


def test_examples_are_the_ends_of_the_first_seed(page, results):
    items = results["items"]
    chosen = items[(items["criterion"] == "safe") & (items["method"] == "reinforce") & (items["seed"] == 0)]
    rewards = sorted(chosen["reward"], reverse=True)
    start = next(i for i, row in enumerate(page.rows) if len(row) == 3)
    shown = [row[0].strip() for row in page.rows[start : start + 4]]
    assert shown == [f"{reward:.3f}" for reward in (*rewards[:2], *rewards[-2:])]


def test_results_without_texts_or_search_have_no_such_sections(results, tmp_path):
    tables = results | {name: results[name].iloc[:0] for name in ("items", "heads", "history")}
    page = Page(write_report(tmp_path / "rows.html", meta=META, **tables))
    places = {attributes["data-figure"] for _, attributes in page.elements if "data-figure" in attributes}
    assert places == {"accuracy"} and not page.section("examples")


def test_missing_columns_and_empty_rows_are_refused(results, tmp_path):
    with pytest.raises(ValueError, match="'rows' lacks the column 'n'"):
        write_report(tmp_path / "x.html", meta={}, **results | {"rows": results["rows"].drop(columns="n")})
    with pytest.raises(ValueError, match="'rows' is empty"):
        write_report(tmp_path / "x.html", meta={}, **results | {"rows": results["rows"].iloc[:0]})


def signs(page: Page) -> dict[str, str]:
    """Failure sign -> Present or Not seen."""
    text = " ".join(page.text.split())
    return {name: state for state, name in re.findall(r"(Present|Not seen): ?(.+?)\. Looked for", text)}


def test_failure_signs_are_named_when_present(tmp_path):
    items = make_items(("safe",), (0, 1), 50, methods=("random_heads", "reinforce"))
    items["reward"] = 0.5 + (items["reward"] - 0.5) / 20
    rows = make_rows(items)
    rows["accuracy"] = [0.7, 0.71, 0.6, 0.78]
    rows["ci_low"], rows["ci_high"] = rows["accuracy"] - 0.05, rows["accuracy"] + 0.05
    heads = make_heads(("safe",), (0, 1), 2, 2).assign(selected=[True, True, True, False] * 2)
    tables = {"rows": rows, "items": items, "heads": heads, "history": make_history(("safe",), (0, 1), 5)}
    page = Page(write_report(tmp_path / "bad.html", meta={}, **tables))
    assert set(signs(page).values()) == {"Present"} and len(signs(page)) == 4
    for place in ("safe: 0.690 against 0.705", "safe: 100% of rewards", "safe: 0.600 to 0.780", "safe: 75% of heads"):
        assert place in page.text


def test_failure_signs_are_looked_for_when_absent(tmp_path):
    items = make_items(("safe",), (0, 1), 50, methods=("random_heads", "reinforce"))
    rows = make_rows(items)
    rows["accuracy"] = [0.6, 0.61, 0.9, 0.95]
    rows["ci_low"], rows["ci_high"] = rows["accuracy"] - 0.05, rows["accuracy"] + 0.05
    heads = make_heads(("safe",), (0, 1), 2, 2).assign(selected=[True, False, True, False] * 2)
    tables = {"rows": rows, "items": items, "heads": heads, "history": make_history(("safe",), (0, 1), 5)}
    page = Page(write_report(tmp_path / "good.html", meta={}, **tables))
    assert set(signs(page).values()) == {"Not seen"} and len(signs(page)) == 4


@pytest.fixture(scope="module")
def hostile(tmp_path_factory) -> Path:
    tables = make_results(HOSTILE, (0, 1), n=30, n_layers=2, n_heads=2)
    tables["items"]["prompt"], tables["items"]["response"] = HOSTILE[0], HOSTILE[1]
    meta = META | {
        "title": HOSTILE[0],
        "model": HOSTILE[1],
        "notes": list(HOSTILE),
        "criteria": {name: HOSTILE[1] for name in HOSTILE},
        "versions": {HOSTILE[1]: HOSTILE[0]},
    }
    return write_report(tmp_path_factory.mktemp("hostile") / "hostile.html", meta=meta, **tables)


def test_hostile_text_is_text(hostile):
    page = Page(hostile)
    assert len(page.scripts) == len([tag for tag, _ in page.elements if tag == "script"]) == 3
    assert not any(tag in ("img", "b") or "onerror" in attributes for tag, attributes in page.elements)
    for name in HOSTILE:
        assert name in page.text
    data = next(script for script in page.scripts if script.startswith('{"accuracy"'))
    assert not set("<>&\u2028") & set(data)


def opened_in(browser: str, path: Path) -> tuple[str, list[str]]:
    """The page after its scripts have run, and what the console said."""
    flags = "--headless --no-sandbox --disable-gpu --virtual-time-budget=8000 --enable-logging=stderr --v=0 --dump-dom"
    done = subprocess.run(
        [browser, *flags.split(), path.as_uri()], capture_output=True, text=True, timeout=120, check=True
    )
    return done.stdout, [line for line in done.stderr.splitlines() if "CONSOLE" in line]


def test_the_page_opens_without_a_console_message_and_runs_no_data(hostile, tmp_path, chromium):
    # An alert leaves a mark on the page. The trap needs the nonce of the page's own scripts to be let in.
    text = hostile.read_text(encoding="utf-8")
    nonce = re.search(r"'nonce-(\w+)'", text)[1]
    trap = f'<script nonce="{nonce}">{TRAP}</script>'
    trapped = tmp_path / "trapped.html"
    trapped.write_text(text.replace("<title>", trap + "<title>", 1), encoding="utf-8")
    dom, console = opened_in(chromium, trapped)
    assert console == []
    assert "window.alert = () =>" in dom and 'data-alerted="1"' not in dom
    assert dom.count('class="main-svg"') >= len(FIGURES)
    assert "<img" not in dom


def test_the_trap_of_the_test_above_catches_an_alert(tmp_path, chromium):
    page = tmp_path / "alert.html"
    page.write_text(f"<html><script>{TRAP}</script><img src=x onerror=alert(1)></html>")
    assert 'data-alerted="1"' in opened_in(chromium, page)[0]
