"""docs/real_models.md: a reader has imported what loads models."""

GIVEN = ("load_model",)
