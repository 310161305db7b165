"""Packages that only scores need, and what to say where one is missing."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from workers.errors import JobError


@contextmanager
def installed(score: str, package: str) -> Iterator[None]:
    """Around the import of ``package`` for ``score``.

    Raises:
        JobError: it is not installed; names the extra that brings it.
    """
    try:
        yield
    except ModuleNotFoundError as error:
        raise JobError(
            f"The score {score} needs the package {package}, which is not installed here; "
            "pip install 'wattledger[quality]' on this node."
        ) from error
