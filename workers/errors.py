"""Every error Wattledger raises on purpose. A message is the fact, then the remedy.

WattledgerError                      exit code
├── InputError                       2   what the user gave cannot be used
│   ├── ManifestError                2   all problems of one manifest, each with its line
│   ├── UnknownNameError             2   a name that is not in a registry; lists the known ones
│   └── LedgerError                  2   the ledger cannot be read or written: a full disk, a torn file
├── UnreachableError                 3   a cluster, agent or server does not answer
├── MeterError                       1   a device cannot be metered or capped
│   ├── CapError                     1   a power limit cannot be set as asked
│   └── UnmeteredError               1   a kind of energy cannot be had on this host
└── JobError                         1   a job cannot go on
    └── PeerLostError                4   another rank of the attempt has ended; that one says why
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class WattledgerError(Exception):
    """Root of the tree; anything else that escapes is a bug."""

    exit_code = 1


class InputError(WattledgerError):
    """What the user gave cannot be used."""

    exit_code = 2


class UnknownNameError(InputError):
    """``name`` is not a known ``what``; the message lists the known ones and the nearest.

    ``listing`` stands for the known ones in the message where they are too many to write out.
    """

    def __init__(self, what: str, name: str, known: Iterable[str], *, listing: str | None = None) -> None:
        self.what, self.name, self.known = what, name, tuple(sorted(known))
        super().__init__(unknown_name(what, name, self.known, listing=listing))


class LedgerError(InputError):
    """The ledger cannot be read or written; nothing of what was asked has changed it."""


class UnreachableError(WattledgerError):
    """A cluster, an agent or a server does not answer."""

    exit_code = 3


class MeterError(WattledgerError):
    """A device cannot be read or metered."""


class CapError(MeterError):
    """A power limit cannot be set as asked."""


class UnmeteredError(MeterError):
    """A kind of energy cannot be had on this host.

    Attributes:
        reason: a clause for a table, without a full stop.
        remedy: sentences: what to run or give to have it.
    """

    def __init__(self, reason: str, remedy: str) -> None:
        self.reason, self.remedy = reason, remedy
        super().__init__(f"{reason[0].upper()}{reason[1:]}. {remedy}")


class JobError(WattledgerError):
    """A job cannot go on; the message is what its user reads."""


class PeerLostError(JobError):
    """Another process of the same attempt has ended, or does not answer; the reason is that one's."""

    exit_code = 4


class ManifestError(InputError):
    """Every problem of one manifest, in the order of its lines.

    Attributes:
        source: the file's name.
        problems: ``(line, message)`` pairs; line 0 means the problem has no single line.
    """

    def __init__(self, source: str, problems: Iterable[tuple[int, str]]) -> None:
        self.source = source
        self.problems = tuple(sorted(set(problems)))
        count = len(self.problems)
        lines = [f"{source}:{line}: {text}" if line else f"{source}: {text}" for line, text in self.problems]
        noun = "problem" if count == 1 else "problems"
        super().__init__("\n".join([f"{count} {noun} in {source}; nothing was submitted.", *lines]))


def unknown_name(what: str, name: str, known: Iterable[str], *, listing: str | None = None) -> str:
    """The sentence for a name that is not known: the fact, the nearest known name, and all of them, or ``listing``."""
    names = sorted(known)
    near = difflib.get_close_matches(name, names, n=1 if listing is None else 3)
    hint = f" Did you mean {' or '.join(map(repr, near))}?" if near else ""
    return f"unknown {what} {name!r}.{hint} Known: {listing or ', '.join(names)}."
