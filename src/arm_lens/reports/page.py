"""What every page shares: one self-contained file, in which no text from users' data runs as code.

A page opens from disk without a network; its Content-Security-Policy forbids the browser to fetch anything and to run
any script without the page's nonce. Texts come from users' data: Jinja escapes them in the page, `plots.theme.literal`
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
    """The page made from a template of this package.

    Args:
        template: its file name; it extends ``base.html``.
        figures: by key; the template has a place for each.
        context: what the template speaks of; a name that is missing there is an error.
    """
    data = json.dumps({key: figure_json(figure) for key, figure in figures.items()})
    # In JSON these characters only occur inside strings, where the escape means the same; in a script element a bare
    # "<" could end the element.
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


def figure_json(figure: go.Figure) -> dict[str, Any]:
    """Data and layout, free to be as wide as its place on the page."""
    content: dict[str, Any] = json.loads(figure.to_json())
    content["layout"] |= {"width": None, "autosize": True}
    return {"data": content["data"], "layout": content["layout"]}


def facts(meta: Mapping[str, Any], names: Mapping[str, str]) -> list[tuple[str, str]]:
    """What is known about a run, as pairs of a name and a text; what ``meta`` lacks is left out."""
    told = [(name, _written(key, meta[key])) for key, name in names.items() if meta.get(key) is not None]
    return [*told, ("Figures drawn with", f"plotly {plotly.__version__}")]


def _written(key: str, value: Any) -> str:
    if isinstance(value, Mapping):
        return ", ".join(f"{name} {version}" for name, version in value.items())
    if isinstance(value, (list, tuple)):
        return ", ".join(map(str, value))
    if key == "runtime_seconds":
        minutes, seconds = divmod(round(value), 60)
        return f"{minutes // 60} h {minutes % 60} min" if minutes >= 60 else f"{minutes} min {seconds} s"
    return str(value)
