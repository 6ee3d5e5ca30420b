"""A report as one plain HTML page: no script, no network, every text escaped."""

from __future__ import annotations

import html
from collections.abc import Mapping
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from .jobs import write_atomically

STYLE = """
body { font: 16px/1.5 system-ui, sans-serif; color: #1c1f26; background: #fff; max-width: 62rem; margin: 2rem auto; padding: 0 1rem }
h1 { font-size: 1.7rem; margin-bottom: .2rem } h2 { font-size: 1.2rem; margin-top: 2.2rem }
p.lead { font-size: 1.15rem } figure { margin: 1rem 0 } img { max-width: 100%; height: auto; border-radius: 4px }
figcaption { color: #555; font-size: .9rem } table { border-collapse: collapse; font-variant-numeric: tabular-nums }
th, td { padding: .25rem .8rem; border-bottom: 1px solid #ddd; text-align: right } th:first-child, td:first-child { text-align: left }
.key span { display: inline-block; margin-right: 1rem } .key i { display: inline-block; width: .8em; height: .8em; margin-right: .35em; border-radius: 2px }
.note { color: #555; font-size: .9rem }
"""  # noqa: E501 - one rule a line reads better than wrapped CSS


class Report:
    """Collects the parts of a page.

    Args:
        title: Heading of the page.
        lead: The result in a sentence.
    """

    def __init__(self, title: str, lead: str) -> None:
        self._title = html.escape(title)
        self._parts = [f"<h1>{self._title}</h1>", f'<p class="lead">{html.escape(lead)}</p>']

    def heading(self, text: str) -> None:
        """Starts a section."""
        self._parts.append(f"<h2>{html.escape(text)}</h2>")

    def text(self, text: str, note: bool = False) -> None:
        """A paragraph."""
        kind = ' class="note"' if note else ""
        self._parts.append(f"<p{kind}>{html.escape(text)}</p>")

    def picture(self, address: str, caption: str) -> None:
        """A picture from a ``data:`` address."""
        described = html.escape(caption, quote=True)
        image = f'<img src="{html.escape(address, quote=True)}" alt="{described}">'
        self._parts.append(f"<figure>{image}<figcaption>{described}</figcaption></figure>")

    def table(self, header: Sequence[str], rows: Sequence[Sequence[Any]]) -> None:
        """A table; numbers are shown with three digits, None as a dash."""
        head = "".join(f"<th>{html.escape(h)}</th>" for h in header)
        body = "".join("<tr>" + "".join(f"<td>{_cell(c)}</td>" for c in row) + "</tr>" for row in rows)
        self._parts.append(f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>")

    def key(self, entries: Sequence[Mapping[str, Any]]) -> None:
        """The colours of the structures."""
        items = []
        for entry in entries:
            red, green, blue = (round(255 * c) for c in entry["colour"])
            colour = f"rgb({red},{green},{blue})"
            items.append(f'<span><i style="background:{colour}"></i>{html.escape(entry["name"])}</span>')
        self._parts.append(f'<p class="key">{"".join(items)}</p>')

    def write(self, path: Path) -> None:
        """Writes the page atomically."""
        page = (
            '<!doctype html><html lang="en"><head><meta charset="utf-8">'
            '<meta name="viewport" content="width=device-width, initial-scale=1">'
            f"<title>{self._title}</title><style>{STYLE}</style></head><body>{''.join(self._parts)}</body></html>\n"
        )
        write_atomically(path, page.encode())


def _cell(value: Any) -> str:
    if value is None:
        return "&ndash;"
    return html.escape(f"{value:.3f}" if isinstance(value, float) else str(value))
