"""docs/data.md: the rows of a reader's own."""

GIVEN = ("LabelledResponse",)
