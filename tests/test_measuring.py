"""Parts of benchmarks on disk: a folder goes on with the same settings, and never mixes two."""

from __future__ import annotations

import pytest
from measuring import claim, kept


def test_a_run_goes_on_where_it_stopped_and_only_with_the_same_settings(tmp_path):
    claim(tmp_path, {"examples": 20, "masks": (1, 2)})
    assert kept(tmp_path, "first", lambda: [1.5]) == [1.5]
    claim(tmp_path, {"examples": 20, "masks": (1, 2)})
    assert kept(tmp_path, "first", lambda: [2.5]) == [1.5]
    for other in (
        {"examples": 10, "masks": (1, 2)},
        {"masks": (1, 2)},
        {"examples": 20, "masks": (1, 2), "dtype": "x"},
    ):
        with pytest.raises(SystemExit, match=r"parts of another run: (examples|dtype) was .*; choose another --out"):
            claim(tmp_path, other)


def test_parts_of_unknown_settings_are_not_used(tmp_path):
    kept(tmp_path, "first", lambda: 1)
    with pytest.raises(SystemExit, match="no record of what they were made of"):
        claim(tmp_path, {"examples": 20})
