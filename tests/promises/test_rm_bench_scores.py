"""RM-Bench's scores are those of its published definition, computed another way."""

from __future__ import annotations

import json

import numpy as np
import pandas as pd
import pytest

from arm_lens.benchmark import BenchmarkConfig, run_benchmark
from arm_lens.evaluation.rm_bench import DOMAINS, rm_bench_scores, rm_bench_sections

PARTS = [part for parts in DOMAINS.values() for part in parts]


def results(seed: int, parts=PARTS, prompts: int = 7) -> tuple[pd.DataFrame, dict[str, np.ndarray]]:
    """Random rewards, as results by pair and as the matrices of the definition."""
    rng = np.random.default_rng(seed)
    rows, matrices = [], {}
    for part in parts:
        chosen, rejected = rng.integers(0, 4, (2, prompts, 3))
        matrices[part] = np.mean(
            (chosen[:, :, None] > rejected[:, None]) + (chosen[:, :, None] == rejected[:, None]) / 2, 0
        )
        for item in range(prompts):
            for i in range(3):
                for j in range(3):
                    difference = np.sign(chosen[item, i] - rejected[item, j])
                    row = {"item": f"{part} {item}/{i + 1}-{j + 1}", "subset": part, "correct": (difference + 1) / 2}
                    rows.append(row)
    return pd.DataFrame(rows).sample(frac=1, random_state=seed), matrices


def test_scores_are_means_of_the_triangles_and_the_diagonal():
    table, matrices = results(0)
    scores = rm_bench_scores(table).set_index("domain")
    for domain, parts in DOMAINS.items():
        easy, normal, hard = np.mean(
            [
                (matrix[np.tril_indices(3, -1)].mean(), np.diag(matrix).mean(), matrix[np.triu_indices(3, 1)].mean())
                for matrix in (matrices[part] for part in parts)
            ],
            axis=0,
        )
        expected = [easy, normal, hard, (easy + normal + hard) / 3]
        assert scores.loc[domain, ["easy", "normal", "hard", "average"]].tolist() == pytest.approx(expected)
    own = scores.loc[list(DOMAINS), ["easy", "normal", "hard", "average"]].mean()
    assert scores.loc["overall", ["easy", "normal", "hard", "average"]].tolist() == pytest.approx(own.tolist())
    assert scores["n"].to_dict() == {"chat": 7, "code": 7, "math": 7, "safety": 14, "overall": 35}


def test_a_missing_domain_leaves_no_overall_score_and_runs_are_kept_apart():
    first, second = (results(seed, parts)[0] for seed, parts in ((1, ["chat", "math"]), (2, PARTS)))
    scores = rm_bench_scores(pd.concat([first.assign(judge="a"), second.assign(judge="b")]), by=["judge"])
    overall = scores[scores["domain"] == "overall"].set_index("judge")["average"]
    assert np.isnan(overall["a"]) and overall["b"] == pytest.approx(rm_bench_scores(second)["average"].iloc[-1])
    safety = scores[(scores["judge"] == "a") & (scores["domain"] == "safety")]
    assert safety["average"].isna().all() and safety["n"].item() == 0


def test_incomplete_prompts_and_unknown_domains_are_refused():
    table, _ = results(3)
    with pytest.raises(ValueError, match=r"has 8 pairs, not each of 9 once"):
        rm_bench_scores(table.iloc[1:])
    with pytest.raises(ValueError, match=r"not each of 9 once"):
        rm_bench_scores(pd.concat([table, table.iloc[:1]]))
    with pytest.raises(ValueError, match="unknown subsets: poetry"):
        rm_bench_scores(table.replace({"subset": {"chat": "poetry"}}))
    with pytest.raises(ValueError, match="no column 'correct'"):
        rm_bench_scores(table.drop(columns="correct"))


def test_section_scores_are_the_overall_scores_with_intervals_that_cover_them():
    table, _ = results(4, prompts=20)
    scores = rm_bench_scores(table).set_index("domain").loc["overall"]
    sections = rm_bench_sections(table).set_index("section")
    for section, column in (("easy", "easy"), ("normal", "normal"), ("hard", "hard"), ("overall", "average")):
        row = sections.loc[section]
        assert row["score"] == row["score_of_present"] == pytest.approx(scores[column])
        assert row["ci_low"] < row["score"] < row["ci_high"]
    assert sections["n"].tolist() == [100] * 4
    few = rm_bench_sections(table[table["subset"].isin(["chat", "safety-refuse"])]).set_index("section")
    own = [rm_bench_scores(table).set_index("domain").loc["chat", "hard"]]
    own.append(
        table[(table["subset"] == "safety-refuse") & table["item"].str.contains("1-2|1-3|2-3")]["correct"].mean()
    )
    assert few.loc["hard", "score_of_present"] == pytest.approx(np.mean(own))
    assert few["score"].isna().all() and few.loc["hard", "missing"] == ["code", "math", "safety-response"]


@pytest.mark.slow
def test_intervals_of_section_scores_have_the_coverage_that_they_state():
    rng, share, covered = np.random.default_rng(0), 0.7, []
    names = [(part, item, i, j) for part in PARTS for item in range(40) for i in (1, 2, 3) for j in (1, 2, 3)]
    for _ in range(200):
        verdict = np.repeat(rng.random(len(PARTS) * 40) < share, 9)  # the pairs of a prompt are judged alike
        rows = [
            {"item": f"{part} {item}/{i}-{j}", "subset": part, "correct": float(one)}
            for (part, item, i, j), one in zip(names, verdict, strict=True)
        ]
        hard = rm_bench_sections(pd.DataFrame(rows)).set_index("section").loc["hard"]
        covered.append(hard["ci_low"] <= share <= hard["ci_high"])
    assert 0.92 <= np.mean(covered) <= 0.99


@pytest.mark.slow
def test_a_benchmark_on_a_file_of_rm_bench_has_its_section_scores(tmp_path):
    rows = [
        {"id": f"{part} {n}", "prompt": f"Question {n} of {part}?", "domain": part}
        | {
            side: [f"{word} {n}" + " and so on" * style for style in range(3)]
            for side, word in (("chosen", "right"), ("rejected", "wrong"))
        }
        for part in PARTS
        for n in range(4)
    ]
    (tmp_path / "total_dataset.json").write_text(json.dumps(rows))
    study = {"kind": "preferences", "name": "rm", "path": str(tmp_path / "total_dataset.json"), "pool": 18}
    config = BenchmarkConfig(judges=["length"], lead="length", n_examples=[2], studies=[study])
    results = run_benchmark(config, tmp_path / "out", progress=False)
    scores = results.sections.set_index("section")["score"].to_dict()
    assert scores == {"easy": 1.0, "normal": 0.5, "hard": 0.0, "overall": 0.5}
    assert set(results.tables.summary["subset"]) == set(PARTS)
