"""docs/images.md: a reader has examples that were held out."""

GIVEN = ("held_out",)
