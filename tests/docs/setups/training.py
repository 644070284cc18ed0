"""docs/training.md: a reader has a language model, and conversations."""

GIVEN = ("model", "conversations")
