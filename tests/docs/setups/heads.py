"""docs/heads.md: a reader has a reward model, and examples that were held out."""

GIVEN = ("reward", "held_out")
