"""The error about one field of a preference, and how errors quote its value."""

from __future__ import annotations

from arm_lens.preferences.marks import describe_images


class PreferenceFieldError(ValueError):
    """A field of a preference has an invalid value."""

    def __init__(self, field: str, reason: str) -> None:
        super().__init__(field, reason)
        self.field = field
        """Name of the invalid field."""
        self.reason = reason
        """What is wrong with it, phrased to follow the field's name."""

    def __str__(self) -> str:
        return f"{self.field} {self.reason}"


def short_repr(value: object) -> str:
    """The value as error messages quote it: at most 80 characters, and the type where the value does not make it clear."""
    text = describe_images(repr(_begin(value)))
    text = text if len(text) <= 80 else text[:77] + "..."
    type_is_clear = value is None or isinstance(value, (str, list, tuple, dict))
    return text if type_is_clear else f"{text} ({type(value).__name__})"


def _begin(value: object) -> object:
    """The beginning of a value: the rest is cut off, and a long text or an image is slow to write out."""
    if isinstance(value, (str, bytes)):
        return value[:400]
    if isinstance(value, dict):
        return {key: _begin(item) for key, item in value.items()}
    return [_begin(item) for item in value] if isinstance(value, list) else value
