"""Reads the tables of an HTML page, for tests."""

from __future__ import annotations

from html.parser import HTMLParser


class PageReader(HTMLParser):
    """Tables by id (rows of cell texts, headings first), the tags that occurred, and all text outside style."""

    def __init__(self, page: str) -> None:
        super().__init__(convert_charrefs=True)
        self.tables: dict[str, list[list[str]]] = {}
        self.tags: set[str] = set()
        self.attributes: list[tuple[str, str, str]] = []
        self._rows: list[list[str]] = []
        self._in_cell = self._in_style = False
        self._words: list[str] = []
        self.feed(page)
        self.text = " ".join(" ".join(self._words).split())

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        self.attributes += [(tag, name, value or "") for name, value in attrs]
        if tag == "table":
            self._rows = self.tables.setdefault(dict(attrs).get("id") or "", [])
        elif tag == "tr":
            self._rows.append([])
        elif tag in {"td", "th"}:
            self._rows[-1].append("")
            self._in_cell = True
        elif tag == "style":
            self._in_style = True

    def handle_endtag(self, tag: str) -> None:
        if tag in {"td", "th"}:
            self._in_cell = False
            self._rows[-1][-1] = " ".join(self._rows[-1][-1].split())
        elif tag == "style":
            self._in_style = False

    def handle_data(self, data: str) -> None:
        if self._in_cell:
            self._rows[-1][-1] += data
        if not self._in_style:
            self._words.append(data)

    def column(self, table: str, title: str) -> list[str]:
        """The cells below the heading that begins with ``title``."""
        heads, *rows = self.tables[table]
        index = next(i for i, head in enumerate(heads) if head.startswith(title))
        return [cells[index] for cells in rows if len(cells) == len(heads)]
