"""The parts that every report page is made of: shell, sections, lists and tables. Escapes all text it is given."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

from blossom_edge.simulation.report_style import STYLE


def page(title: str, parts: Sequence[str], *, foot: str) -> str:
    """A whole page without script and network; `parts` and `foot` are HTML."""
    return (
        '<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8"/>'
        '<meta name="viewport" content="width=device-width, initial-scale=1"/>'
        f"<title>{escape(title)}</title><style>{STYLE}</style></head>"
        f"<body><main>{''.join(parts)}</main><footer><p>{foot}</p></footer></body></html>\n"
    )


def header(kicker: str, headline: str) -> str:
    """The small line, given as HTML, above the result in one line of text."""
    return f'<header><p class="kicker">{kicker}</p><h1>{escape(headline)}</h1></header>'


def section(title: str, body: str) -> str:
    """A framed part of the page; `body` is HTML."""
    return f"<section><h2>{escape(title)}</h2>{body}</section>"


def bullets(lines: Sequence[str]) -> str:
    """A list of sentences."""
    return f"<ul>{''.join(f'<li>{escape(line)}</li>' for line in lines)}</ul>"


def figure(caption: str, chart: str) -> str:
    """A chart, which is HTML, below its caption."""
    return f"<figure><figcaption>{escape(caption)}</figcaption>{chart}</figure>"


def table(
    heads: Sequence[str],
    rows: Sequence[Sequence[str]],
    *,
    numbers_from: int,
    marked: frozenset[tuple[int, int]] = frozenset(),
    whole_names: bool = False,
) -> str:
    """A table that scrolls sideways where it is too wide.

    numbers_from: columns from this one on stand right; marked: (row, column) of the cells to stress;
    whole_names: the first column does not wrap.
    """

    def cells(values: Sequence[str], tag: str, row: int) -> str:
        extra = ' scope="col"' if tag == "th" else ""
        kinds = [
            _kind(number=i >= numbers_from, best=(row, i) in marked, name=whole_names and i == 0 and row >= 0)
            for i in range(len(values))
        ]
        return "".join(
            f"<{tag}{extra}{kind}>{escape(value)}</{tag}>" for kind, value in zip(kinds, values, strict=True)
        )

    body = "".join(f"<tr>{cells(row, 'td', number)}</tr>" for number, row in enumerate(rows))
    head = cells(heads, "th", -1)
    kind = "wide names" if whole_names else "wide"
    return f'<div class="{kind}"><table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>'


def _kind(**wanted: bool) -> str:
    names = [name for name, is_wanted in wanted.items() if is_wanted]
    return f' class="{" ".join(names)}"' if names else ""
