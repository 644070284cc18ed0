"""docs/howto/columns.md: what its code takes for granted."""

from __future__ import annotations

from docs.setups import _small


def prepare(page):
    """Write the files of the page; give what stands for the names of models."""
    _small.write_csv(page.folder / "pairs.csv", "question,good,bad", ("Hi?", "Hello.", "What?"))
    rows = [("Hi?", "Hello.", "What?", "1"), ("Ho?", "No.", "Yes.", "2"), ("He?", "So.", "Thus.", "=")]
    _small.write_csv(page.folder / "choices.csv", "question,answer_1,answer_2,better", *rows)
    _small.write_csv(page.folder / "reviews.csv", "review,stars", ("good", 5), ("bad", 1))
    _small.write_csv(page.folder / "rated.csv", "question,good,bad,preference_strength", ("Hi?", "Hello.", "What?", 3))
    _small.write_csv(page.folder / "broken.csv", "question,good,bad", ("Hi?", "Hello.", ""))
