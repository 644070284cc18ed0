"""The pages: one to try reward models, and one that describes the interface. Neither loads anything from elsewhere.

A page's content security policy names the digests of its own script and style, so that the browser runs nothing else. The
first page puts what it receives into the document as text only.
"""

from __future__ import annotations

import base64
import functools
import hashlib
import re
from collections.abc import Mapping
from importlib import resources
from typing import Any

import jinja2
from starlette.responses import HTMLResponse


def page() -> HTMLResponse:
    """The page to try reward models."""
    return _response(_source("page.html"))


def page_of_interface(description: Mapping[str, Any]) -> HTMLResponse:
    """The page that describes the interface, from its OpenAPI description."""
    environment = jinja2.Environment(
        autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters["named"] = lambda schema: _named(schema)
    template = environment.from_string(_source("interface.html"))
    operations = [
        {"path": path, "method": method.upper(), **operation}
        for path, methods in description["paths"].items()
        for method, operation in methods.items()
    ]
    schemas = description.get("components", {}).get("schemas", {})
    return _response(template.render(info=description["info"], operations=operations, schemas=schemas))


def _named(schema: Mapping[str, Any]) -> str:
    """A schema as a short text: ``list of Item``, ``string or null``."""
    if "$ref" in schema:
        return str(schema["$ref"]).rpartition("/")[2]
    if "anyOf" in schema:
        return " or ".join(dict.fromkeys(_named(one) for one in schema["anyOf"]))
    if "enum" in schema:
        return " or ".join(map(repr, schema["enum"]))
    if schema.get("type") == "array":
        items = schema.get("items")
        return f"list of {_named(items)}" if items else "list"
    if isinstance(schema.get("additionalProperties"), Mapping):
        return f"object of {_named(schema['additionalProperties'])} by name"
    return str(schema.get("const") or schema.get("type") or "anything")


@functools.cache
def _source(name: str) -> str:
    return (resources.files("arm_lens.service") / name).read_text(encoding="utf-8")


def _response(html: str) -> HTMLResponse:
    scripts, styles = (" ".join(_digests(html, element)) or "'none'" for element in ("script", "style"))
    policy = (
        f"default-src 'none'; script-src {scripts}; style-src {styles}; connect-src 'self'; img-src data:; "
        "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    )
    return HTMLResponse(html, headers={"content-security-policy": policy, "x-frame-options": "DENY"})


def _digests(html: str, element: str) -> list[str]:
    contents = re.findall(rf"<{element}>(.*?)</{element}>", html, re.DOTALL)
    return [f"'sha256-{base64.b64encode(hashlib.sha256(one.encode()).digest()).decode()}'" for one in contents]
