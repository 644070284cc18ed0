"""Check that every link within the built site leads to a page, and to a place on it: ``check_site.py FOLDER``.

mkdocs checks links in Markdown; those of notebooks, of the reference and of generated pages are checked here. Nor may
examples in docstrings that are not indented have become quotations, of which the pages have none.
"""

from __future__ import annotations

import re
import sys
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote


class Page(HTMLParser):
    """The links of a page, and the places that can be linked to."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.places: set[str] = set()
        self.links: list[str] = []
        self.quotes = False
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Note an element's id and link, and quotations."""
        self.quotes |= tag == "blockquote"
        for name, value in attrs:
            if name == "id" and value:
                self.places.add(value)
            elif name in ("href", "src") and value:
                self.links.append(value)


def faults(folder: Path) -> list[str]:
    """Each broken link of a site and each quotation, with its page."""
    pages = {path.resolve(): Page(path.read_text(encoding="utf-8")) for path in folder.rglob("*.html")}
    found = []
    for path, page in pages.items():
        if path.name == "404.html":  # its links begin at the root of the server
            continue
        found += [f"{path.relative_to(folder.resolve())}: an example is shown as a quotation"] * page.quotes
        for link in page.links:
            if re.match(r"\w+:|//", link):
                continue
            file, _, place = unquote(link).partition("#")
            target = (path.parent / file).resolve() if file else path
            target = target / "index.html" if target.is_dir() else target
            if not target.exists() or (place and target in pages and place not in pages[target].places):
                found.append(f"{path.relative_to(folder.resolve())}: {link} leads nowhere")
    return found


if __name__ == "__main__":
    sys.exit("\n".join(faults(Path(sys.argv[1]))) or 0)
