"""The page of a run tells what its tables tell, opens offline, and lets no data run as code."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pandas as pd
import pytest
from plots.synthetic_benchmark import SUBSETS, make_calibration, make_comparisons, make_fits, make_summary
from plots.synthetic_results import make_heads, make_history, make_items
from reports.page_support import HOSTILE, TRAP, Page, opened_in, results_of_tables, signs

from arm_lens.evaluation.health import Check, health
from arm_lens.evaluation.main_setting import main_rows, main_settings
from arm_lens.registry import JUDGES
from arm_lens.reports import write_report
from arm_lens.reports.benchmark import HEAD_FIGURES

pytestmark = pytest.mark.slow

JUDGES_HERE = ("zero_shot", "few_shot", "arm_reinforce", "arm_random_heads", "sav", "length")
META = {
    "title": "A benchmark",
    "model": "tiny",
    "seeds": [0, 1],
    "samples": 3,
    "n_examples": 40,
    "command": "arm-lens benchmark demo --out <folder>",
    "notes": ["One note."],
    "benchmarks": {"hacking": "Being right and looking good are independent."},
}
CHECKS = [Check("A sign", "a rule", ["here"]), Check("Another sign", "another rule", [])]
NOTHING = pd.DataFrame()


def write(folder, meta, checks, **tables) -> Path:
    """The page of results with these tables."""
    return write_report(results_of_tables(meta, checks, **tables), folder)


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
    return write(tmp_path_factory.mktemp("page"), META, CHECKS, **tables)


@pytest.fixture(scope="module")
def page(path) -> Page:
    return Page(path)


def words(page: Page) -> str:
    return " ".join(page.text.split())


def rows_of(page: Page, judge: str) -> list[list[str]]:
    """Every table row of a judge, in order; the first is that of the headline."""
    found = ([" ".join(cell.split()) for cell in row] for row in page.rows)
    return [
        row for row in found if row and row[0] in (JUDGES[judge].style.label, f"{JUDGES[judge].style.label} {judge}")
    ]


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
        said = re.search(re.escape(JUDGES[other].style.label) + r" \(([^)]*)\)", summary)[1]
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
    places = page.places
    data = next(json.loads(script) for script in page.scripts if script.startswith('{"accuracy-0"'))
    kinds = {"accuracy-0", "differences-0", "examples-0", "noise-0", "calibration-0", "bias-1", "bias-2"}
    assert set(places) == set(data) == kinds and len(places) == len(kinds)
    assert all(figure["data"] for figure in data.values())
    ids = [attributes["id"] for _, attributes in page.elements if "id" in attributes]
    assert len(ids) == len(set(ids))


def test_failure_signs_are_told(page):
    assert signs(page) == {"A sign": "Present", "Another sign": "Not seen"}
    assert "here" in words(page)


def test_health_of_the_tables_can_be_told(tables, tmp_path):
    checks = health(tables["summary"], tables["comparisons"], None, tables["fits"])
    told = signs(Page(write(tmp_path / "x", {}, checks, **tables)))
    assert told == {check.name: "Present" if check.found else "Not seen" for check in checks}
    assert told["Follows the bias rather than correctness"] == "Present"


def test_the_bias_table_starts_with_the_judge_that_follows_it_most(page):
    start = next(i for i, row in enumerate(page.rows) if row and "length, standard" in " ".join(row[1:2]))
    first, second = (page.rows[start + i] for i in (1, 2))
    assert {first[0].strip(), second[0].strip()} == {"SAV", "Few-shot (in prompt)"}
    assert first[1].split()[0] == "+0.733"


def test_samples_and_seeds_are_kept_apart(page, main):
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
    assert row[3] == f"{own['fit_accuracy'].mean():.3f}" and row[5:] == ["12 to 14", "–", "–"]


def test_the_same_tables_make_the_same_bytes(path, tables, tmp_path):
    again = write(tmp_path / "again", META, CHECKS, **tables)
    assert again.read_bytes() == path.read_bytes()


def test_nothing_is_fetched(page):
    for tag, attributes in page.elements:
        assert not {"src", "href", "srcset", "action", "data"} & set(attributes), (tag, attributes)
    policy = next(a["content"] for t, a in page.elements if t == "meta" and "http-equiv" in a)
    assert policy.startswith("default-src 'none'") and "http" not in policy


def test_facts_are_told_and_missing_ones_left_out(page, tables, tmp_path):
    for fact in ("tiny", "arm-lens benchmark demo --out <folder>", "One note.", "looking good"):
        assert fact in page.text
    bare = Page(write(tmp_path / "bare", {}, [], **tables))
    assert "Versions" not in bare.text and "None" not in bare.text and not bare.section("health")


def test_a_summary_alone_is_enough(tables, tmp_path):
    summary = tables["summary"][tables["summary"]["judge"].isin(["zero_shot", "length"])]
    empty = dict.fromkeys(("comparisons", "calibration", "fits"), NOTHING)
    page = Page(write(tmp_path / "x", {}, [], summary=summary, **empty))
    places = set(page.places)
    assert places == {"accuracy-0", "bias-1", "bias-2"}
    assert "Highest mean accuracy: Zero-shot" in words(page) and "Wins" not in words(page)
    assert not page.section("variance") and not page.section("fits")


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
    return write(tmp_path_factory.mktemp("hostile"), meta, checks, **parts)


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


# The heads of the lead judge

CRITERIA = ("safe", "polite")
SETTING = {"benchmark": "criteria", "judge": "arm_reinforce", "n_examples": 40, "noise": 0.0, "sample": 0}


def make_found(criteria=CRITERIA, seeds=(0, 1)) -> dict[str, pd.DataFrame]:
    """Heads, history, items and texts of the lead judge, as a run has them."""
    heads = make_heads(criteria, seeds, 3, 4).assign(**SETTING, by="selection probability")
    items = make_items(criteria, seeds, 40, judges=("arm_reinforce",), texts=False)
    items = items.assign(n_examples=40, probability=items["reward"], cluster=items["item"])
    texts = items.drop_duplicates(["subset", "item"])[["benchmark", "subset", "item"]]
    texts = texts.assign(prompt="Where to?", response=[f"To the mill {item}." for item in texts["item"]])
    history = make_history(criteria, seeds, 9).assign(**SETTING)
    return {"heads": heads.assign(score=heads["probability"]), "history": history, "items": items, "texts": texts}


@pytest.fixture(scope="module")
def found():
    return make_found()


@pytest.fixture(scope="module")
def plain():
    return make_tables(CRITERIA, ("zero_shot", "arm_reinforce"), hacking=False) | {"calibration": NOTHING}


def only_main(tables):
    """Without the studies of examples and noise."""
    main = {name: table[(table["n_examples"].isin([0, 40])) & (table["noise"] == 0)] for name, table in tables.items()
            if len(table)}  # fmt: skip
    return tables | main


def test_heads_stand_below_the_verdicts(plain, found, tmp_path):
    page = Page(write(tmp_path, META, [], **only_main(plain), **found))
    kinds = [f"{kind}-0" for kind in HEAD_FIGURES]
    assert page.places[-len(kinds) :] == kinds and page.section("heads")
    assert page.text.index("What REINFORCE heads selected") > page.text.index("Wins against")
    assert page.places[0] == "accuracy-0"


def test_examples_are_the_ends_of_the_first_fit(plain, found, tmp_path):
    page = Page(write(tmp_path, META, [], **only_main(plain), **found))
    items = found["items"]
    own = items[(items["subset"] == "safe") & (items["seed"] == 0)].sort_values("reward", ascending=False)
    start = next(number for number, row in enumerate(page.rows) if len(row) == 3 and "To the mill" in row[2])
    shown = page.rows[start : start + 4]
    ends = [*own.iloc[:2].to_dict("records"), *own.iloc[-2:].to_dict("records")]
    assert [row[0].strip() for row in shown] == [f"{one['reward']:.3f}" for one in ends]
    assert all(f"To the mill {one['item']}." in row[2] for one, row in zip(ends, shown, strict=True))
    wrong = ["judged wrongly" in row[1] for row in shown]
    assert wrong == [one["correct"] < 0.5 for one in ends]


def test_conversations_are_quoted_as_text(plain, found, tmp_path):
    talk = ({"role": "user", "content": "Is it far?"},)
    texts = found["texts"].assign(prompt=[talk] * len(found["texts"]))
    page = Page(write(tmp_path, META, [], **only_main(plain), **found | {"texts": texts}))
    assert "Is it far?" in page.text and "role" not in page.text.split("Examples")[-1].split("How it was")[0]


def test_a_search_by_something_else_than_probabilities_has_no_map_of_them(plain, found, tmp_path):
    heads = found["heads"].assign(probability=float("nan"), by="effect")
    history = found["history"].drop(columns=["expected_heads", "entropy"])
    page = Page(write(tmp_path, META, [], **only_main(plain), **found | {"heads": heads, "history": history}))
    assert "selected_heads-0" in page.places and "training_reward-0" in page.places
    assert not {"selection_probabilities-0", "training_expected_heads-0"} & set(page.places)


def test_results_without_heads_have_no_such_sections(plain, tmp_path):
    page = Page(write(tmp_path, META, [], **only_main(plain)))
    assert not page.section("heads") and not page.section("examples")


def test_hostile_names_and_texts_of_heads_are_text(plain, tmp_path):
    tables = only_main(make_tables(HOSTILE, ("zero_shot", "arm_reinforce"), hacking=False))
    found = make_found(HOSTILE)
    texts = found["texts"].assign(prompt=HOSTILE[0], response=HOSTILE[1])
    meta = META | {"subsets": {HOSTILE[0]: HOSTILE[1]}}
    path = write(tmp_path, meta, [], **tables | {"calibration": NOTHING}, **found | {"texts": texts})
    page = Page(path)
    assert len(page.scripts) == 3 and not any(tag in ("img", "b") for tag, _ in page.elements)
    assert page.text.count(HOSTILE[1]) > 2
