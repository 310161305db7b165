"""A YAML text as plain data with the line of every key and item. The one door of ``yaml``.

Scalars are read as YAML 1.2's core schema, not as 1.1: ``1e-3`` is a number, and ``no``, ``on`` and ``2024-05-01``
are text, which is what people mean. A text that is built to exhaust a reader is refused while it is being read.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import yaml

from workers.errors import ManifestError
from workers.section import KeyPath

MAX_BYTES = 1 << 20
"""A manifest of a thousand jobs is a few kB; a mebibyte of YAML already takes a pure-Python reader seconds."""
MAX_NODES = 100_000
"""Keys and values together."""
MAX_DEPTH = 32
"""A manifest nests four deep; the composer recurses once per level."""
MAX_DIGITS = 300
"""Digits of an integer: what is longer is not a number anyone means, and Python refuses it from 4,300 on."""

_TAG = "tag:yaml.org,2002:"


@dataclass(frozen=True, kw_only=True)
class Document:
    """What a text says, and where.

    Attributes:
        data: mappings, lists, text, numbers, booleans and ``None``; a key is always text.
        lines: path to the 1-based line of that key or item.
        problems: ``(line, sentence)`` of what could be read past: duplicate keys, scalars that make no sense.
        unread: paths of those scalars, whose data is ``None`` for want of a value.
        first_line: where the document begins, from 1.
    """

    data: object
    lines: Mapping[KeyPath, int]
    problems: tuple[tuple[int, str], ...]
    unread: frozenset[KeyPath]
    first_line: int = 1

    @property
    def body(self) -> Mapping[str, object]:
        """Its keys and values; none where it is no mapping."""
        return self.data if isinstance(self.data, Mapping) else {}

    def line_of(self, path: KeyPath) -> int:
        """The line of ``path``, or of the nearest key above it; 0 where there is none."""
        for length in range(len(path), 0, -1):
            if path[:length] in self.lines:
                return self.lines[path[:length]]
        return 0


def dotted(path: KeyPath) -> str:
    """A path as people write it: ``training.epochs``."""
    return ".".join(printable(str(part)) for part in path)


def shortened(text: str, *, length: int = 60) -> str:
    """``text`` for a message: a key of a thousand characters stays one line of a terminal."""
    return text if len(text) <= length else text[: length - 3] + "..."


def printable(text: str) -> str:
    """``text`` for a message, short and without what a terminal cannot show."""
    return shortened(text if text.isprintable() else text.encode("unicode_escape").decode())


def read_document(text: str, *, source: str) -> Document:
    """Read one YAML document.

    Raises:
        ManifestError: not YAML, empty, more than one document, or larger or deeper than a manifest can be.
    """
    return _read(text, lambda composer: [composer.get_single_node()], source=source)[0]


def read_documents(text: str, *, source: str) -> tuple[Document, ...]:
    """Read the YAML documents of a text, which ``---`` tells apart; those that say nothing are left out.

    Raises:
        ManifestError: not YAML, nothing but empty documents, or larger or deeper than manifests can be.
    """
    return _read(text, _all_nodes, source=source)


def _read(
    text: str, compose: Callable[[_Composer], Sequence[yaml.Node | None]], *, source: str
) -> tuple[Document, ...]:
    if len(text) > MAX_BYTES:
        raise ManifestError(source, [(0, f"longer than {MAX_BYTES:,} bytes; shorten it")])
    try:
        nodes = compose(_Composer(text))
    except _RefusedError as error:
        raise ManifestError(source, [(error.line, str(error))]) from error
    except yaml.MarkedYAMLError as error:
        raise ManifestError(source, [(_line(error.problem_mark), _syntax_sentence(error))]) from error
    except yaml.reader.ReaderError as error:
        line = text.count("\n", 0, error.position) + 1
        told = f"not YAML: character {chr(error.character)!r} is not allowed; remove it"
        raise ManifestError(source, [(line, told)]) from error
    documents = tuple(_document(node) for node in nodes if node is not None)
    if not documents:
        raise ManifestError(source, [(0, "empty; a manifest has at least version, name, task and model")])
    return documents


def _all_nodes(composer: _Composer) -> list[yaml.Node]:
    nodes: list[yaml.Node] = []
    while composer.check_node():
        node = composer.get_node()
        if node is not None and not (isinstance(node, yaml.ScalarNode) and node.tag == _TAG + "null"):
            nodes.append(node)
    return nodes


def _document(node: yaml.Node) -> Document:
    reader = _NodeReader()
    data = reader.value(node, ())
    return Document(
        data=data,
        lines=reader.lines,
        problems=tuple(reader.problems),
        unread=frozenset(reader.unread),
        first_line=_line(node.start_mark),
    )


class _RefusedError(Exception):
    """Good YAML that a manifest does not need and a hostile file does."""

    def __init__(self, problem: str, event: yaml.Event) -> None:
        super().__init__(problem)
        self.line = _line(event.start_mark)


class _Composer(yaml.SafeLoader):
    """PyYAML's composer with the core schema's scalars and limits that hold while it works."""

    yaml_implicit_resolvers: dict[str, list[tuple[str, re.Pattern[str]]]] = {}  # noqa: RUF012 (filled below)

    def __init__(self, text: str) -> None:
        super().__init__(text)
        self._nodes = 0
        self._depth = 0

    def compose_node(self, parent: yaml.Node | None, index: int) -> yaml.Node | None:
        event: yaml.Event = self.peek_event()  # type: ignore[no-untyped-call]
        if isinstance(event, yaml.NodeEvent) and event.anchor is not None:
            raise _RefusedError("anchors (&) and aliases (*) are not read in a manifest; write the value out", event)
        self._nodes += 1
        self._depth += 1
        if self._nodes > MAX_NODES:
            raise _RefusedError(f"more than {MAX_NODES:,} keys and values; shorten it", event)
        if self._depth > MAX_DEPTH:
            raise _RefusedError(f"nested deeper than {MAX_DEPTH} levels; flatten it", event)
        node = super().compose_node(parent, index)
        self._depth -= 1
        return node


_CORE_SCHEMA: tuple[tuple[str, str, str], ...] = (
    ("null", r"^(?:~|null|Null|NULL|)$", "~nN"),
    ("bool", r"^(?:true|True|TRUE|false|False|FALSE)$", "tTfF"),
    ("int", r"^(?:[-+]?[0-9]+|0o[0-7]+|0x[0-9a-fA-F]+)$", "-+0123456789"),
    (
        "float",
        r"^(?:[-+]?(?:\.[0-9]+|[0-9]+(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?|[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN))$",
        "-+.0123456789",
    ),
)
"""Name, form and first characters of YAML 1.2's core scalars (section 10.3.2); an int is looked for before a float."""

for _name, _form, _first in _CORE_SCHEMA:
    _Composer.add_implicit_resolver(_TAG + _name, re.compile(_form), [*_first, *([""] if _name == "null" else [])])


def _utf8(text: str) -> str:
    text.encode()  # half of a surrogate pair, written \\ud800, could be neither stored nor printed
    return text


def _integer(text: str) -> int:
    if len(text) > MAX_DIGITS:
        raise ValueError
    return int(text, 10) if text.lstrip("+-").isdecimal() else int(text, 0)


def _finite(text: str) -> float:
    number = float(re.sub(r"\.(inf|nan)$", r"\1", text.lower()))
    if not math.isfinite(number):
        raise ValueError
    return number


_SCALARS: dict[str, Callable[[str], object]] = {
    _TAG + "str": _utf8,
    _TAG + "null": lambda _: None,
    _TAG + "bool": lambda text: text.lower() == "true",
    _TAG + "int": _integer,
    _TAG + "float": _finite,
}
"""Tag to what reads it; a ``ValueError`` means that the text is not of that kind."""


class _NodeReader:
    """Turns nodes into data and notes lines and problems on the way."""

    def __init__(self) -> None:
        self.lines: dict[KeyPath, int] = {}
        self.problems: list[tuple[int, str]] = []
        self.unread: set[KeyPath] = set()

    def value(self, node: yaml.Node, path: KeyPath) -> object:
        """The data of ``node``, found at ``path``."""
        if isinstance(node, yaml.MappingNode) and node.tag == _TAG + "map":
            return self._mapping(node, path)
        if isinstance(node, yaml.SequenceNode) and node.tag == _TAG + "seq":
            for index, item in enumerate(node.value):
                self.lines[(*path, index)] = _line(item.start_mark)
            return [self.value(item, (*path, index)) for index, item in enumerate(node.value)]
        return self._scalar(node, path)

    def _mapping(self, node: yaml.MappingNode, path: KeyPath) -> dict[str, object]:
        data: dict[str, object] = {}
        for key_node, value_node in node.value:
            line = _line(key_node.start_mark)
            if not isinstance(key_node, yaml.ScalarNode):
                self._problem(line, path, "a key must be plain text")
                continue
            key = str(key_node.value)
            first = self.lines.get((*path, key))
            if first is not None:
                self._problem(line, path, f"duplicate key {shortened(key)!r}; it is already on line {first}")
                continue
            self.lines[(*path, key)] = line
            data[key] = self.value(value_node, (*path, key))
        return data

    def _scalar(self, node: yaml.Node, path: KeyPath) -> object:
        read = _SCALARS.get(node.tag) if isinstance(node, yaml.ScalarNode) else None
        try:
            if read is not None:
                return read(str(node.value))
            sentence = f"tag {shortened(node.tag.replace(_TAG, '!!'))!r} is not read in a manifest; remove it"
        except ValueError:
            kind = "text that UTF-8 can hold" if node.tag == _TAG + "str" else "a finite number of sensible length"
            sentence = f"{printable(str(node.value))} is not {kind}"
        self._problem(_line(node.start_mark), path, sentence)
        self.unread.add(path)
        return None

    def _problem(self, line: int, path: KeyPath, sentence: str) -> None:
        self.problems.append((line, f"{dotted(path)}: {sentence}" if path else sentence))


class _Mark(Protocol):
    """A position; the compiled and the plain reader of PyYAML each have a class for it. ``line`` is from 0."""

    @property
    def line(self) -> int: ...


def _line(mark: _Mark | None) -> int:
    return mark.line + 1 if mark is not None else 0


_HINTS: tuple[tuple[str, str], ...] = (
    (r"'\t'", "; indent with spaces, not tabs"),
    ("another document", "; keep one document in it"),
    ("<block end>", "; check the indentation of this line and the lines above it"),
    ("mapping values are not allowed", "; put text that holds ': ' in quotes"),
)
"""Words of PyYAML's finding, and the mistake that is behind it most of the time."""


def _syntax_sentence(error: yaml.MarkedYAMLError) -> str:
    found = str(error.problem or error)
    if found.startswith("but ") and error.context:
        found = f"{error.context}, {found}"
    hint = next((hint for words, hint in _HINTS if words in found), "")
    return f"not YAML: {shortened(found, length=200)}{hint}"
