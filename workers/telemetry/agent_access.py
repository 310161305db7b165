"""How are agents protected that somebody else starts? Paths on their disks, in a file of their own."""

from __future__ import annotations

import tomllib
from dataclasses import dataclass, fields
from pathlib import Path

from workers.errors import InputError
from workers.telemetry.access import Access


@dataclass(frozen=True, kw_only=True)
class AgentAccess:
    """The protection of agents that others start: where it is on their disks, and no secret, for Ray shows arguments.

    The names are the agent's flags. The paths are the same on every node; a file may differ from node to node.

    Attributes:
        tls_ca: certificates that vouch for the agents', PEM, for who scrapes them; ``None``: those its system trusts.

    Raises:
        InputError: one of a pair without the other.
    """

    tls_cert: Path | None = None
    tls_key: Path | None = None
    tls_ca: Path | None = None
    auth_user: str | None = None
    auth_password_file: Path | None = None

    def __post_init__(self) -> None:
        self._shape()

    def _shape(self) -> Access:
        """The same with any password, which is not looked at here."""
        password = None if self.auth_password_file is None else "in its file"
        return Access(cert=self.tls_cert, key=self.tls_key, user=self.auth_user, password=password)

    @classmethod
    def read(cls, file: Path) -> AgentAccess:
        """The access a TOML file describes, one ``name = "value"`` a line; paths are taken from the file's folder.

        Raises:
            InputError: it cannot be read, or has another key, a value that is no text, or half a pair.
        """
        known = [each.name for each in fields(cls)]
        try:
            found = tomllib.loads(file.read_text(encoding="utf-8"))
        except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
            reason = error.strerror if isinstance(error, OSError) else error
            raise InputError(f"{file} cannot be read: {reason}. Write TOML with any of {', '.join(known)}.") from error
        for name, value in found.items():
            if name not in known or not isinstance(value, str):
                raise InputError(
                    f'{file} has {name}, which is not known or no text. Known: {", ".join(known)}, each = "…"; '
                    "a password stays in a file of its own."
                )
        folder = file.absolute().parent
        return cls(**{name: value if name == "auth_user" else folder / value for name, value in found.items()})

    def flags(self) -> list[str]:
        """The command line of an agent that is protected so."""
        wanted = {
            "--tls-cert": self.tls_cert,
            "--tls-key": self.tls_key,
            "--auth-user": self.auth_user,
            "--auth-password-file": self.auth_password_file,
        }
        return [part for flag, value in wanted.items() if value is not None for part in (flag, str(value))]

    def check_exposure(self, listen: str) -> None:
        """As ``Access.check_exposure``, before anything is started."""
        self._shape().check_exposure(listen, insecure=False)


UNPROTECTED = AgentAccess()
"""Agents without protection, which is for the loopback interface."""
