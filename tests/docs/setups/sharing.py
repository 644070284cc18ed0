"""docs/sharing.md: a reader has reward models of one language model."""

GIVEN = ("model", "reward", "test", "polite", "long")
