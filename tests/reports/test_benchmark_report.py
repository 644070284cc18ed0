"""The page of a benchmark run tells what its tables tell, opens offline, and lets no data run as code."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pandas as pd
import pytest
from plots.synthetic_benchmark import SUBSETS, make_calibration, make_comparisons, make_fits, make_summary
from reports.test_run_report import TRAP, Page, opened_in, signs

from arm_lens.evaluation.health import Check, health
from arm_lens.evaluation.main_setting import main_rows, main_settings
from arm_lens.plots.theme import JUDGES
from arm_lens.reports.benchmark import write_benchmark_report

JUDGES_HERE = ("zero_shot", "few_shot", "arm_reinforce", "arm_random_heads", "sav", "length")
HOSTILE = ("</script><script>alert(1)</script>", "<img src=x onerror=alert(1)>", "{{ 7 * 7 }} & <b>\u2028$x$</b>")
META = {
    "title": "A benchmark",
    "model": "tiny",
    "seeds": [0, 1],
    "samples": 3,
    "n_examples": 40,
    "runtime_seconds": 75.2,
    "command": "arm-lens benchmark demo --out <folder>",
    "notes": ["One note."],
    "benchmarks": {"hacking": "Being right and looking good are independent."},
}
CHECKS = [Check("A sign", "a rule", ["here"]), Check("Another sign", "another rule", [])]
NOTHING = pd.DataFrame()


def make_tables(subsets=SUBSETS[:3], judges=JUDGES_HERE, hacking=True) -> dict[str, pd.DataFrame]:
    summary = make_summary(judges, subsets, n=50, sizes=(3, 40, 80), noises=(0.4,), hacking=hacking)
    return {
        "summary": summary,
        "comparisons": make_comparisons(summary),
        "calibration": make_calibration(("few_shot", "sav"), subsets, n=80),
        "fits": make_fits(summary),
    }


@pytest.fixture(scope="module")
def tables() -> dict[str, pd.DataFrame]:
    return make_tables()


@pytest.fixture(scope="module")
def main(tables) -> pd.DataFrame:
    return main_rows(tables["summary"], main_settings(tables["summary"], n_examples=40))


@pytest.fixture(scope="module")
def path(tables, tmp_path_factory) -> Path:
    return write_benchmark_report(tmp_path_factory.mktemp("page") / "index.html", meta=META, checks=CHECKS, **tables)


@pytest.fixture(scope="module")
def page(path) -> Page:
    return Page(path)


def words(page: Page) -> str:
    return " ".join(page.text.split())


def rows_of(page: Page, judge: str) -> list[list[str]]:
    """Every table row of a judge, in order; the first is that of the headline."""
    found = ([" ".join(cell.split()) for cell in row] for row in page.rows)
    return [row for row in found if row and row[0] in (JUDGES[judge].name, f"{JUDGES[judge].name} {judge}")]


def test_the_headline_table_holds_means_over_subsets_sorted_by_the_first_benchmark(page, main):
    criteria = main[main["benchmark"] == "criteria"]
    means = criteria.groupby("judge")["accuracy"].mean().sort_values(ascending=False)
    for judge in JUDGES_HERE:
        cell = rows_of(page, judge)[0][1].split()
        own = criteria[criteria["judge"] == judge]
        below = sum((own["accuracy"] - own["ci_low"]) ** 2) ** 0.5 / 3
        assert cell[0] == f"{means[judge]:.3f}" and cell[1] == f"{means[judge] - below:.3f}"
        hacking = main[(main["benchmark"] == "hacking") & (main["judge"] == judge)]
        assert rows_of(page, judge)[0][2].split()[0] == f"{hacking['accuracy'].mean():.3f}"
    shown = [row[0].split()[-1] for row in page.rows if row and row[0].split() and row[0].split()[-1] in JUDGES_HERE]
    assert shown[: len(JUDGES_HERE)] == means.index.to_list()


def test_the_words_count_wins_and_losses_after_holm(page, tables):
    table = tables["comparisons"]
    table = table[(table["benchmark"] == "criteria") & (table["n_examples"] == 40) & (table["noise"] == 0)]
    assert set(table["judge"]) == {"arm_reinforce"}
    summary = words(page).split("In brackets the mean over subsets")[0].split("hacking")[0]
    for other, rows in table.groupby("other"):
        sure = rows[(rows["p_holm"] < 0.05) & (rows["ci_low"] * rows["ci_high"] > 0)]["difference"]
        better, worse = int((sure > 0).sum()), int((sure < 0).sum())
        said = re.search(re.escape(JUDGES[other].name) + r" \(([^)]*)\)", summary)[1]
        assert said.startswith(f"{rows['difference'].mean():+.3f}")
        assert (f"better on {better}" in said) == (better > 0) and (f"worse on {worse}" in said) == (worse > 0)


def test_every_accuracy_of_the_main_comparison_is_there_with_its_interval_and_n(page, main):
    text = words(page)
    for row in main.to_dict("records"):
        cell = f"{row['accuracy']:.3f} {row['ci_low']:.3f} to {row['ci_high']:.3f}"
        assert any(cell in shown for shown in rows_of(page, row["judge"])[1:] for shown in shown), row
    assert "3 subsets of single responses, n = 50 each, 40 labelled examples" in text
    assert "36 subsets of pairs, n = 60 each, 40 labelled examples" in text
    assert "answers n = 50" in " ".join(" ".join(cell.split()) for row in page.rows for cell in row)


def test_every_figure_has_its_place_and_its_data(page):
    places = [attributes["data-figure"] for _, attributes in page.elements if "data-figure" in attributes]
    data = next(json.loads(script) for script in page.scripts if script.startswith('{"accuracy-0"'))
    kinds = {"accuracy-0", "differences-0", "examples-0", "noise-0", "reliability-0", "bias-1", "bias-2"}
    assert set(places) == set(data) == kinds and len(places) == len(kinds)
    assert all(figure["data"] for figure in data.values())
    ids = [attributes["id"] for _, attributes in page.elements if "id" in attributes]
    assert len(ids) == len(set(ids))


def test_failure_signs_are_told(page):
    assert signs(page) == {"A sign": "Present", "Another sign": "Not seen"}
    assert "here" in words(page)


def test_health_of_the_tables_can_be_told(tables, tmp_path):
    checks = health(tables["summary"], tables["comparisons"], None, tables["fits"])
    told = signs(Page(write_benchmark_report(tmp_path / "x.html", meta={}, checks=checks, **tables)))
    assert told == {check.name: "Present" if check.found else "Not seen" for check in checks}
    assert told["Follows the bias rather than correctness"] == "Present"


def test_the_bias_table_starts_with_the_judge_that_follows_it_most(page):
    start = next(i for i, row in enumerate(page.rows) if row and "length, standard" in " ".join(row[1:2]))
    first, second = (page.rows[start + i] for i in (1, 2))
    assert {first[0].strip(), second[0].strip()} == {"SAV", "Few-shot (in prompt)"}
    assert first[1].split()[0] == "+0.733"


def test_draws_and_seeds_are_kept_apart(page, main):
    own = main[(main["benchmark"] == "criteria") & (main["judge"] == "arm_reinforce")]
    samples, seeds = ((own[name] ** 2).mean() ** 0.5 for name in ("sd_samples", "sd_seeds"))
    row = next(row for row in rows_of(page, "arm_reinforce") if row[1:3] == ["criteria", "3"])
    assert row[3].startswith(f"{samples:.3f} up to {own['sd_samples'].max():.3f}") and row[4] == "2"
    assert row[5].startswith(f"{seeds:.3f} up to {own['sd_seeds'].max():.3f}")


def test_what_was_fitted_is_told(page, tables):
    fits = tables["fits"]
    own = fits[
        (fits["judge"] == "sav") & (fits["benchmark"] == "criteria") & (fits["n_examples"] == 40) & (fits["noise"] == 0)
    ]
    row = next(row for row in rows_of(page, "sav") if row[1:3] == ["criteria", str(len(own))])
    assert row[3] == f"{own['fit_accuracy'].mean():.3f}" and row[5:] == ["12 to 14", "–"]


def test_the_same_tables_make_the_same_bytes(path, tables, tmp_path):
    again = write_benchmark_report(tmp_path / "again.html", meta=META, checks=CHECKS, **tables)
    assert again.read_bytes() == path.read_bytes()


def test_nothing_is_fetched(page):
    for tag, attributes in page.elements:
        assert not {"src", "href", "srcset", "action", "data"} & set(attributes), (tag, attributes)
    policy = next(a["content"] for t, a in page.elements if t == "meta" and "http-equiv" in a)
    assert policy.startswith("default-src 'none'") and "http" not in policy


def test_facts_are_told_and_missing_ones_left_out(page, tables, tmp_path):
    for fact in ("tiny", "1 min 15 s", "arm-lens benchmark demo --out <folder>", "One note.", "looking good"):
        assert fact in page.text
    bare = Page(write_benchmark_report(tmp_path / "bare.html", meta={}, checks=[], **tables))
    assert "Running time" not in bare.text and "None" not in bare.text and not bare.section("health")


def test_a_summary_alone_is_enough(tables, tmp_path):
    summary = tables["summary"][tables["summary"]["judge"].isin(["zero_shot", "length"])]
    empty = dict.fromkeys(("comparisons", "calibration", "fits"), NOTHING)
    page = Page(write_benchmark_report(tmp_path / "x.html", meta={}, summary=summary, checks=[], **empty))
    places = {attributes["data-figure"] for _, attributes in page.elements if "data-figure" in attributes}
    assert places == {"accuracy-0", "bias-1", "bias-2"}
    assert "Highest mean accuracy: Zero-shot" in words(page) and "Wins" not in words(page)
    assert not page.section("variance") and not page.section("fits")


def test_pairs_and_responses_of_one_benchmark_do_not_mix(tables, tmp_path):
    mixed = {
        name: table.assign(benchmark=table["benchmark"].replace({"hacking verdicts": "hacking"}))
        for name, table in tables.items()
    }
    page = Page(write_benchmark_report(tmp_path / "x.html", meta={}, checks=[], **mixed))
    assert "hacking (pairs)" in page.text and "hacking (responses)" in page.text


def test_missing_columns_and_empty_summaries_are_refused(tables, tmp_path):
    with pytest.raises(ValueError, match="'summary' lacks the column 'sd_draws'"):
        less = tables | {"summary": tables["summary"].drop(columns="sd_samples")}
        write_benchmark_report(tmp_path / "x.html", meta={}, checks=[], **less)
    with pytest.raises(ValueError, match="'summary' is empty"):
        write_benchmark_report(
            tmp_path / "x.html", meta={}, checks=[], **tables | {"summary": tables["summary"].iloc[:0]}
        )


@pytest.fixture(scope="module")
def hostile(tmp_path_factory) -> Path:
    made = make_tables(HOSTILE, ("zero_shot", "arm_reinforce", "sav"), hacking=False)
    cells = make_tables(("safe",), ("zero_shot", "arm_reinforce", "sav"))
    hidden = {name: HOSTILE[1] for name in ("sav", "length")}
    parts = {}
    for name, table in made.items():
        more = cells[name][cells[name]["benchmark"] == "hacking"]
        more = more.assign(subset=more["subset"].str.replace("length", HOSTILE[2], regex=False), benchmark=HOSTILE[0])
        both = pd.concat([table, more], ignore_index=True)
        for column in {"judge", "other"} & set(both.columns):
            both[column] = both[column].replace(hidden)
        parts[name] = both
    meta = META | {
        "title": HOSTILE[0],
        "model": HOSTILE[1],
        "notes": list(HOSTILE),
        "benchmarks": {HOSTILE[0]: HOSTILE[1]},
        "judge_names": {"zero_shot": HOSTILE[2]},
        "versions": {HOSTILE[1]: HOSTILE[0]},
    }
    checks = [Check(*HOSTILE[:2], list(HOSTILE))]
    return write_benchmark_report(tmp_path_factory.mktemp("hostile") / "x.html", meta=meta, checks=checks, **parts)


def test_hostile_text_is_text(hostile):
    page = Page(hostile)
    assert len(page.scripts) == len([tag for tag, _ in page.elements if tag == "script"]) == 3
    assert not any(tag in ("img", "b") or "onerror" in attributes for tag, attributes in page.elements)
    for name in HOSTILE:
        assert name in page.text
    data = next(script for script in page.scripts if script.startswith('{"accuracy-0"'))
    assert not set("<>&\u2028") & set(data)


def test_the_page_opens_without_a_console_message_and_runs_no_data(hostile, tmp_path, chromium):
    text = hostile.read_text(encoding="utf-8")
    nonce = re.search(r"'nonce-(\w+)'", text)[1]
    trapped = tmp_path / "trapped.html"
    trap = f'<script nonce="{nonce}">{TRAP}</script>'
    trapped.write_text(text.replace("<title>", trap + "<title>", 1), encoding="utf-8")
    dom, console = opened_in(chromium, trapped)
    assert console == []
    assert "window.alert = () =>" in dom and 'data-alerted="1"' not in dom and "<img" not in dom
    assert dom.count('class="main-svg"') >= text.count('data-figure="')
