"""Run the Python code of pages whose setup has ``prepare``: ``PYTHONPATH=tests python tests/docs/run_pages.py [NAME ...]``.

Each page is run in an empty folder, on small random models that all pages share.
"""

from __future__ import annotations

import contextlib
import sys
import tempfile
import time
import warnings
from pathlib import Path

from docs.code_blocks import blocks_of, name_of, pages_with_code, run, setup_of


def main(chosen: list[str]) -> None:
    """Run the chosen pages, or all; an error's traceback names page and line."""
    with tempfile.TemporaryDirectory() as cache:
        for page in pages_with_code():
            setup, name = setup_of(page), name_of(page)
            if not hasattr(setup, "prepare") or (chosen and name not in chosen):
                continue
            begun = time.perf_counter()
            with warnings.catch_warnings(), tempfile.TemporaryDirectory() as folder, contextlib.chdir(folder):
                warnings.simplefilter("ignore")  # a random model is rightly warned of
                names = {"__name__": "page"}
                instead = setup.prepare(names, Path(folder), Path(cache)) or {}
                run(blocks_of(page), names, instead, getattr(setup, "NOT_RUN", {}))
            print(f"{name}: ran in {time.perf_counter() - begun:.1f} s", flush=True)


if __name__ == "__main__":
    main(sys.argv[1:])
