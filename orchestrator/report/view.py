"""What the page shows, as text that needs no further thought: the template only lays it out. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Column:
    """A column's heading.

    Attributes:
        unit: shown below the title; empty for none.
        numeric: whether its entries are numbers, which are set flush right.
    """

    title: str
    unit: str = ""
    numeric: bool = True


@dataclass(frozen=True, kw_only=True)
class Entry:
    """One table cell.

    Attributes:
        text: the figure or the words.
        sd: its standard deviation, without the ±; empty where none is meant.
        note: a second, smaller line.
        best: whether it is the best of its column.
        tag: a word to set apart, such as a method or a state.
        narrow: shown only on a narrow screen, where the next column may be scrolled out of sight.
    """

    text: str
    sd: str = ""
    note: str = ""
    best: bool = False
    tag: str = ""
    narrow: str = ""


@dataclass(frozen=True, kw_only=True)
class Table:
    """A table; the first entry of each row is the row's heading.

    Attributes:
        ident: unique in the page.
        about: a line below the caption; empty for none.
    """

    ident: str
    caption: str
    about: str
    columns: Sequence[Column]
    rows: Sequence[Sequence[Entry]]
    footnotes: Sequence[str] = ()


@dataclass(frozen=True, kw_only=True)
class Card:
    """A headline figure."""

    label: str
    value: str
    unit: str = ""
    note: str = ""
    tag: str = ""


@dataclass(frozen=True, kw_only=True)
class Notice:
    """A sentence in a box. ``loud`` is for what must not be missed."""

    word: str
    text: str
    loud: bool


@dataclass(frozen=True, kw_only=True)
class Plot:
    """An ``<svg>`` of our own making, with what it shows in words for who cannot see it."""

    svg: str
    caption: str
    described: str


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """What may be compared: cells of one task, kind and score."""

    table: Table
    plot: Plot | None


@dataclass(frozen=True, kw_only=True)
class Explanation:
    """How a figure was made."""

    term: str
    formula: str = ""
    text: str


@dataclass(frozen=True, kw_only=True)
class Page:
    """The whole page.

    Attributes:
        generated: when, in UTC, for people; ``generated_iso`` for machines.
        lede: the answer in one or two sentences.
        left_out: jobs that no comparison counts, named with their states; empty when there are none.
        sources: the carbon intensities, PUEs and embodied figures used; ``None`` when no job has any.
        sci: SCI per functional unit; ``None`` when it is known of no job.
        unknown: fields without a value and why; ``None`` when there are none.
    """

    title: str
    generated: str
    generated_iso: str
    lede: str
    notices: Sequence[Notice]
    cards: Sequence[Card]
    comparisons: Sequence[Comparison]
    left_out: str
    jobs: Table
    explanations: Sequence[Explanation]
    sources: Table | None = None
    sci: Table | None = None
    unknown: Table | None = None
    files: Sequence[str] = ()


def joined(parts: Sequence[str]) -> str:
    """The words that there are, side by side: ``seed 1 · 2 attempts``."""
    return " · ".join(part for part in parts if part)
