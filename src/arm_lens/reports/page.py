"""What every page shares: one self-contained file, in which no text from users' data runs as code.

A page opens from disk without a network; its Content-Security-Policy forbids the browser to fetch anything and to run
any script without the page's nonce. Jinja escapes texts from users' data in the page, `plots.theme.literal` escapes them
in the figures' labels, and the figures' JSON cannot close its script element. Nothing in a page depends on the time or
on chance (the nonce is a hash of the figures), so that the same results make the same bytes.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Any

import jinja2
import plotly
import plotly.graph_objects as go
from plotly.offline import get_plotlyjs


def render_page(template: str, figures: Mapping[str, go.Figure], context: Mapping[str, Any]) -> str:
    """Render a template of this package that extends ``base.html`` and has a place for each figure by its key.

    A name of the template that ``context`` lacks is an error.
    """
    data = json.dumps({key: _as_json(figure) for key, figure in figures.items()})
    # In JSON these characters occur only inside strings, where the escape means the same; in a script a bare "<" could
    # end the element.
    for character in "<>&\u2028\u2029":
        data = data.replace(character, f"\\u{ord(character):04x}")
    loader = jinja2.PackageLoader("arm_lens.reports", "templates")
    environment = jinja2.Environment(
        loader=loader, autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    return environment.get_template(template).render(
        figures=figures,
        nonce=hashlib.sha256(data.encode()).hexdigest()[:32],
        data=data,
        plotly_js=get_plotlyjs(),
        **context,
    )


def _as_json(figure: go.Figure) -> dict[str, Any]:
    """Data and layout, without a width, so that the figure fills its place on the page."""
    content: dict[str, Any] = json.loads(figure.to_json())
    content["layout"] |= {"width": None, "autosize": True}
    return {"data": content["data"], "layout": content["layout"]}


def facts(meta: Mapping[str, Any], names: Mapping[str, str]) -> list[tuple[str, str]]:
    """The facts about a run, as pairs of a name and a text; those that ``meta`` lacks are left out."""
    found = [(name, _as_text(meta[key])) for key, name in names.items() if meta.get(key) is not None]
    return [*found, ("Figures drawn with", f"plotly {plotly.__version__}")]


def _as_text(value: Any) -> str:
    if isinstance(value, Mapping):
        return ", ".join(f"{name} {version}" for name, version in value.items())
    return ", ".join(map(str, value)) if isinstance(value, (list, tuple)) else str(value)
