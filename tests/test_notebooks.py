"""Every notebook runs from a clean kernel, shows what it promises, warns of nothing, and is stored without outputs."""

from __future__ import annotations

import os
import resource
from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

FOLDER = Path(__file__).resolve().parents[1] / "notebooks"
NOTEBOOKS = sorted(FOLDER.glob("*.ipynb"))
EXPECTED = [
    "01_quickstart",
    "02_which_heads_encode_a_preference",
    "03_comparing_criteria",
    "04_reward_hacking",
    "05_paper_figures",
    "06_your_own_model",
    "07_a_real_model",
    "08_judging_images",
]
PLOTLY = "application/vnd.plotly.v1+json"
REAL = "07_a_real_model"
"""The notebook that downloads a model. It takes 130 seconds on a processor that is quick in bfloat16, and more on others."""
each_notebook = pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
each_run = pytest.mark.parametrize(
    "path",
    [pytest.param(path, id=path.stem, marks=[pytest.mark.real] * (path.stem == REAL)) for path in NOTEBOOKS],
)


def test_the_notebooks_are_those_that_the_readme_names():
    assert [path.stem for path in NOTEBOOKS] == EXPECTED


@each_notebook
def test_a_notebook_is_stored_without_outputs(path):
    notebook = nbformat.read(path, as_version=4)
    nbformat.validate(notebook)
    for cell in notebook.cells:
        if cell.cell_type == "code":
            assert cell.outputs == [] and cell.execution_count is None
    # Nothing of whoever wrote it: no widget states, no kernel of a name that others lack.
    assert set(notebook.metadata) <= {"kernelspec", "language_info"}
    assert notebook.metadata.kernelspec.name == "python3"


@each_notebook
def test_a_notebook_teaches_in_prose(path):
    cells = nbformat.read(path, as_version=4).cells
    words = sum(len(cell.source.split()) for cell in cells if cell.cell_type == "markdown")
    assert cells[0].cell_type == "markdown" and cells[0].source.startswith("# ")
    assert words > 300


@pytest.mark.notebook
@each_run
def test_a_notebook_runs_from_a_clean_kernel(path, tmp_path, monkeypatch, chromium):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setenv("OMP_NUM_THREADS", os.environ.get("OMP_NUM_THREADS", "1"))
    notebook = nbformat.read(path, as_version=4)
    client = NotebookClient(notebook, timeout=1800, resources={"metadata": {"path": str(tmp_path)}})
    before = _seconds_of_children()
    client.execute()  # a cell that raises, raises here
    # With room for the other test process, beside which the same work takes more processor time.
    assert _seconds_of_children() - before < (420 if path.stem == REAL else 240)
    outputs = [output for cell in notebook.cells if cell.cell_type == "code" for output in cell.outputs]
    stderr = "".join(output.text for output in outputs if output.output_type == "stream" and output.name == "stderr")
    assert "Warning" not in stderr, stderr
    assert any(PLOTLY in output.get("data", {}) for output in outputs)


def _seconds_of_children() -> float:
    """Processor time of the kernels that have ended, which other work on the machine does not prolong."""
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime
