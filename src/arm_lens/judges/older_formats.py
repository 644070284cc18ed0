"""Records of judges that older versions saved, with the fields that were added since, which say that nothing is known."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


def in_newest_format(record: Mapping[str, Any], format: int) -> dict[str, Any]:
    """A record as the newest format has it.

    Raises:
        ValueError: if it has a field that its format did not have.
    """
    found = _from_4(record) if format == 4 else dict(record)
    return _with_new(found, {"images": None}) if format < 6 else found


def _from_4(record: Mapping[str, Any]) -> dict[str, Any]:
    found = _with_new(record, {"verdict_tokens": None, "metrics": []})
    fit = record.get("fit")
    found |= {"fit": {**fit, "data": ""}} if isinstance(fit, dict) else {}
    return found | (
        {"data": ""} if record.get("kind") in ("sparse attention vectors", "head probe", "calibrated judge") else {}
    )


def _with_new(record: Mapping[str, Any], new: Mapping[str, Any]) -> dict[str, Any]:
    if clashing := new.keys() & record.keys():
        raise ValueError(f"{min(clashing)} is a field of a later format")
    return {**record, **new}
