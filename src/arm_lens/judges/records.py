"""Parts of a saved judge's record: strict, so that a stranger's file has exactly the expected fields and types."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Annotated, Any, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError

RecordType = TypeVar("RecordType", bound="Record")
Printable = Annotated[str, Field(pattern=r"^[^\x00-\x1f\x7f-\x9f]{0,4096}$")]
"""Text that does nothing to a terminal in which an error shows it."""


class Record(BaseModel):
    """Fields of a record, each of exactly its type; a record with another field, or without one of these, is refused."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    @classmethod
    def parse(cls: type[RecordType], values: Mapping[str, Any]) -> RecordType:
        """From JSON.

        Raises:
            ValueError: naming the field.
        """
        try:
            text = json.dumps(values)
            found = cls.model_validate_json(text)
        except ValidationError as error:
            first = error.errors()[0]
            field = ".".join(map(str, first["loc"]))
            raise ValueError(f"{field}: {first['msg']}" if field else first["msg"]) from None
        changed = _first_difference(found.model_dump(mode="json"), json.loads(text))
        if changed is not None:
            raise ValueError(f"{changed} is unknown, missing, or not of its type")
        return found


def _first_difference(one: Any, other: Any, at: str = "") -> str | None:
    """The first place at which a value that was parsed differs from the JSON that it was parsed from."""
    if isinstance(one, dict) and isinstance(other, dict):
        for key in (*other, *one):
            inner = f"{at}.{key}".lstrip(".")
            if key not in one or key not in other:
                return inner
            if found := _first_difference(one[key], other[key], inner):
                return found
        return None
    if isinstance(one, list) and isinstance(other, list) and len(one) == len(other):
        pairs = enumerate(zip(one, other, strict=True))
        return next((found for index, pair in pairs if (found := _first_difference(*pair, f"{at}.{index}"))), None)
    same_type = type(one) is type(other) or (isinstance(one, float) and type(other) is int)
    return None if same_type and one == other else at or "it"
