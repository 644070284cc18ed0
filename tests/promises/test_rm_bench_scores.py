"""RM-Bench's scores are those of its published definition, computed another way."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from arm_lens.evaluation.rm_bench import DOMAINS, rm_bench_scores

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
                    row = {"id": f"{part} {item}/{i + 1}-{j + 1}", "subset": part, "correct": (difference + 1) / 2}
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
    with pytest.raises(ValueError, match="'poetry' is not a domain"):
        rm_bench_scores(table.replace({"subset": {"chat": "poetry"}}))
    with pytest.raises(ValueError, match="no column 'correct'"):
        rm_bench_scores(table.drop(columns="correct"))
