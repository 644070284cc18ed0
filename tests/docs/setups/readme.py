"""README.md: a reader has loaded tokens, and has examples that were held out."""

GIVEN = ("tokens", "held_out")
