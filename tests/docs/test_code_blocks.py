"""Every Python block of README.md and docs/ parses, and names only what exists, and runs."""

from __future__ import annotations

import ast

import pytest
from docs.code_blocks import ROOT, Block, Page, blocks_of, name_of, pages_with_code, problems_of, run, setup_of

WITH_CODE = list(pages_with_code())


@pytest.mark.parametrize("page", WITH_CODE, ids=name_of)
def test_the_code_of_a_page_names_only_what_exists(page):
    assert problems_of(blocks_of(page), frozenset(getattr(setup_of(page), "GIVEN", ()))) == []


@pytest.mark.parametrize(
    ("code", "problem"),
    [
        ("print(model)", "model is not defined"),
        ("from arm_lens import load_modell", "has no load_modell"),
        ("import arm_lens.enginee", "No module named"),
        ("import nothing_of_this_name", "there is no package"),
        ("from arm_lens import load_model\nload_model(nam='x')", "has no parameter nam"),
        ("import arm_lens\narm_lens.ActivationRewardModel.fitt(1)", "has no fitt"),
        ("x = [y for z in (1, 2)]", "y is not defined"),
    ],
)
def test_what_does_not_exist_is_found(code, problem):
    [found] = problems_of([Block(ROOT / "README.md", 7, code)], frozenset())
    assert problem in found and found.startswith(("line 7", "line 8"))


def test_a_setup_belongs_to_a_page_and_gives_only_what_is_used():
    names = {name_of(page): page for page in WITH_CODE}
    for path in (ROOT / "tests" / "docs" / "setups").glob("[!_]*.py"):
        page = names[path.stem]
        used = {node.id for block in blocks_of(page) for node in ast.walk(block.tree()) if isinstance(node, ast.Name)}
        assert set(getattr(setup_of(page), "GIVEN", ())) <= used, path


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    """The small random models that all pages share."""
    return tmp_path_factory.mktemp("models")


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # a random model is rightly warned of
@pytest.mark.parametrize("path", WITH_CODE, ids=name_of)
def test_the_code_of_a_page_runs(path, cache, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with Page(tmp_path, cache, monkeypatch) as page:
        run(path, page)
