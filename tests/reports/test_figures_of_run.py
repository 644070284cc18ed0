"""Every figure of a run or a study can be drawn, for the screen and for paper, whatever its criteria are called; the
program that writes them all goes on where one cannot be drawn."""

from __future__ import annotations

import runpy
import shutil
import sys
from dataclasses import replace
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import pandas as pd
import plotly.graph_objects as go
import pytest
from study.study_support import CRITERIA, kept_study, smallest_study

from arm_lens.benchmark import BenchmarkResults, run_benchmark
from arm_lens.benchmark.config import BenchmarkConfig
from arm_lens.plots import COLUMN, PAGE, SCREEN, themed
from arm_lens.plots.theme import base_layout
from arm_lens.reports.figures import figures_of_run, of_results, of_study
from arm_lens.study import study_run
from arm_lens.study.parts import file_names

pytestmark = pytest.mark.slow

SCRIPT = Path(__file__).resolve().parents[2] / "scripts" / "paper_figures.py"
OF_EACH = ("measures", "gradient-against-shapley", "interactions", "head-card")


@pytest.fixture(scope="module")
def kept(model_of, tmp_path_factory):
    return kept_study(model_of("llama"), tmp_path_factory.getbasetemp())


@pytest.fixture(scope="module")
def smallest(model_of):
    return smallest_study(model_of("llama"))


SMALL = {
    "judges": ["zero_shot", {"judge": "arm_reinforce", "selector": {"steps": 3, "threshold": 0.25}}],
    "keep_reward_models": True, "n_examples": [12], "demonstrations": 1, "readings": 4, "test_items": 16,
}  # fmt: skip


def config_of(folder_of, *studies, **more) -> BenchmarkConfig:
    """A small configuration on a random model."""
    return BenchmarkConfig.model_validate({"model": str(folder_of("llama")), "studies": studies, **SMALL, **more})


@pytest.fixture(scope="module")
def run(folder_of, tmp_path_factory):
    """A run of one criterion with two samples, a seed for each, and its results."""
    folder = tmp_path_factory.mktemp("run")
    world = {"kind": "world", "criteria": ["positive"], "unit": "response"}
    config = config_of(folder_of, world, samples=2, seeds="sample")
    return folder, run_benchmark(config, folder, progress=False)


@pytest.fixture(scope="module")
def script():
    return SimpleNamespace(**runpy.run_path(str(SCRIPT), run_name="paper_figures"))


def drawn(figures, *themes):
    """All of them, by name and theme."""
    found = {}
    for theme in themes:
        with themed(theme):
            found |= {(name, theme.name): make() for name, make in figures.items()}
    for figure in found.values():
        assert isinstance(figure, go.Figure) and len(figure.data)
    return found


# Figures


def test_every_figure_of_the_smallest_study_can_be_drawn(smallest):
    figures = of_study(smallest)
    assert {"shapley", "agreement", "transfer", "measures-positive", "head-card-positive"} <= set(figures)
    assert not {"overlap", "cosines", "stability", "interactions-positive", "selection-steps"} & set(figures)
    drawn(figures, SCREEN, COLUMN, PAGE)


def test_every_figure_of_several_criteria_can_be_drawn_whatever_they_are_called(kept):
    study, _ = kept
    figures = of_study(study)
    files = file_names(list(CRITERIA))
    assert len(set(files.values())) == 3 and files["positive"] == "positive"
    interacting = set(study.interactions["criterion"])
    for kind in OF_EACH:
        for criterion in interacting if kind == "interactions" else CRITERIA:
            assert f"{kind}-{files[criterion]}" in figures
    assert {"overlap", "correlation", "cosines", "transfer", "accuracy-by-heads"} <= set(figures)
    for (name, theme), figure in drawn(figures, SCREEN, COLUMN, PAGE).items():
        assert all(character.isalnum() or character in "-_" for character in name)
        width = {"screen": SCREEN, "column": COLUMN, "page": PAGE}[theme].page_width
        assert figure.layout.width <= width
        texts = [one.text or "" for one in (*figure.layout.annotations, figure.layout.title)]
        assert not any("<b>/x" in text for text in texts)


def test_a_figure_of_one_criterion_shows_that_criterion(kept):
    study, _ = kept
    figures = of_study(study)
    for criterion, file in file_names(list(CRITERIA)).items():
        own = study.attributions[study.attributions["criterion"] == criterion]
        known = own[(own["measure"] == "gradient") & (own["outcome"] == "probability")]["score"]
        (dots,) = (one for one in figures[f"gradient-against-shapley-{file}"]().data if one.type == "scatter")
        assert sorted(dots.x) == pytest.approx(sorted(known))


def test_without_chosen_heads_there_are_no_cosines_to_draw(kept):
    study, _ = kept
    none = replace(study, heads=study.heads.assign(selected=False))
    assert "cosines" in of_study(study) and "cosines" not in of_study(none)


def test_names_of_files_are_safe_and_differ_even_where_capitals_do_not_count():
    names = ["a/b", "a b", "A.B", "a_b-2", "../..", "\u793c\u8c8c", "x" * 300, "x" * 301, ""]
    files = file_names(names)
    assert list(files) == names and len({file.lower() for file in files.values()}) == len(names)
    for file in files.values():
        assert file and file.isascii() and len(file) < 70
        assert all(character.isalnum() or character in "-_" for character in file)
    assert file_names(list(files.values()), most=120) == {file: file for file in files.values()}


# Folders


def test_the_reward_models_of_a_run_are_studied_on_its_items_and_all_is_drawn(model_of, run):
    folder, results = run
    before = figures_of_run(folder)
    assert set(before) == set(of_results(results)) and "shapley" not in before
    study = study_run(folder, model=model_of("llama"), examples=12, standard_error=0.5)
    assert set(study.attributions["n"]) <= {0, 6}
    assert "selection_probability" in set(study.attributions["measure"])
    assert len(study.stability) == 1 and study.trajectory["step"].max() == 2
    pd.testing.assert_frame_equal(study.heads, results.of_lead("heads"))
    figures = figures_of_run(folder)
    assert set(figures) == set(before) | set(of_study(study))
    assert {"world-accuracy", "world-rewards", "world-roc", "world-training-reward", "world-selected-heads"} <= set(
        before
    )
    assert {"shapley", "stability", "selection-steps"} <= set(figures) - set(before)
    only_here = {"stability", "selection-steps", "selection-trajectories", *before}
    drawn({name: figures[name] for name in only_here}, COLUMN)
    none = replace(results, heads=results.heads.assign(selected=False))
    drawn(of_results(none), SCREEN)


@pytest.mark.slow
def test_a_run_of_pairs_with_kept_reward_models_is_studied_too(model_of, folder_of, tmp_path):
    world = {"kind": "world", "criteria": ["positive", "polite"]}
    results = run_benchmark(config_of(folder_of, world, samples=2, seeds=2), tmp_path, progress=False)
    assert results.of_lead("heads")["seed"].nunique() == 4  # two samples and two seeds
    study = study_run(tmp_path, model=model_of("llama"), examples=8, standard_error=0.5)
    assert list(study.attributions["criterion"].unique()) == ["positive", "polite"]
    figures = figures_of_run(tmp_path)
    assert {"world-accuracy", "world_verdicts-accuracy", "world-shared-heads", "overlap"} <= set(figures)
    drawn({name: make for name, make in figures.items() if name.startswith("world")}, PAGE)


def test_a_folder_of_a_study_alone_has_its_figures(kept):
    study, folder = kept
    assert set(figures_of_run(folder)) == set(of_study(study))


def test_folders_that_hold_no_run_are_told(run, tmp_path):
    with pytest.raises(FileNotFoundError, match=r"neither results\.json nor a whole study"):
        figures_of_run(tmp_path)
    with pytest.raises(FileNotFoundError, match=r"is not the folder of a run: it has no results\.json"):
        study_run(tmp_path)
    BenchmarkResults.load(run[0]).save(tmp_path)
    with pytest.raises(FileNotFoundError, match="holds no reward models"):
        study_run(tmp_path)


# The program


def program(monkeypatch, *arguments):
    """Its exit status."""
    monkeypatch.setattr(sys, "argv", [str(SCRIPT), *map(str, arguments)])
    with pytest.raises(SystemExit) as ended:
        runpy.run_path(str(SCRIPT), run_name="__main__")
    return ended.value.code or 0


def test_the_program_writes_all_figures_an_index_and_latex(smallest, tmp_path, monkeypatch, capsys):
    study, out = smallest, tmp_path / "figures"
    study.save(tmp_path / "study")
    assert program(monkeypatch, tmp_path / "study", "--out", out, "--themes", "page", "--formats", "html") == 0
    assert {path.stem for path in (out / "page").glob("*.html")} == set(of_study(study))
    index = (out / "index.html").read_text(encoding="utf-8")
    assert all(f'href="page/{name}.html"' in index for name in of_study(study))
    assert (out / "figures.tex").read_text(encoding="utf-8") == ""  # there are no PDFs
    assert "failed" not in capsys.readouterr().err
    # A table that is broken costs its own figures alone.
    shutil.rmtree(out)
    replace(study, transfer=study.transfer.drop(columns="accuracy")).save(tmp_path / "study")
    assert program(monkeypatch, tmp_path / "study", "--out", out, "--themes", "page", "--formats", "html") == 1
    assert "failed: transfer (page): ValueError" in capsys.readouterr().err
    assert {path.stem for path in (out / "page").glob("*.html")} == set(of_study(study)) - {"transfer"}
    assert "transfer" not in (out / "index.html").read_text(encoding="utf-8")


def test_the_program_says_why_a_folder_cannot_be_studied(run, tmp_path, monkeypatch, capsys):
    BenchmarkResults.load(run[0]).save(tmp_path / "run")
    assert program(monkeypatch, tmp_path / "run", "--study", "--out", tmp_path / "out") == 1
    assert "holds no reward models" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_a_figure_without_room_in_one_column_is_no_failure_but_what_fails_is(script, tmp_path, capsys):
    def high():
        return go.Figure(layout=base_layout(width=300, height=5000, margin={}))

    def broken():
        raise KeyError("gone")

    makers = {"high": high, "broken": broken, "50%_{x}": partial(go.Figure)}
    written, failures = script.make_figures(makers, tmp_path, ["column", "page"], ["html"])
    assert "high: no room in the layout 'column'" in capsys.readouterr().err
    where = {name: [path.relative_to(tmp_path).as_posix() for path in paths] for name, paths in written.items()}
    assert where == {"high": ["page/high.html"], "50%_{x}": ["column/50_x.html", "page/50_x.html"]}
    assert [failure.split(":")[0] for failure in failures] == ["broken (column)", "broken (page)"]


def test_figures_are_included_in_latex_under_names_that_it_takes(script, tmp_path):
    script.write_latex(tmp_path, {"a_b & 50%": [tmp_path / "column" / "a_b.pdf", tmp_path / "page" / "a_b.pdf"]})
    text = (tmp_path / "figures.tex").read_text(encoding="utf-8")
    assert text.count(r"\caption{a\_b \& 50\%}") == 2
    assert r"\begin{figure}[t]" in text and r"\begin{figure*}[t]" in text
    assert r"\includegraphics{column/a_b.pdf}" in text
    assert script.latex("\\{~^#$}") == r"\textbackslash{}\{\textasciitilde{}\textasciicircum{}\#\$\}"
