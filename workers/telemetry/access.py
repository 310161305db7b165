"""Who may read what an agent serves, and is it encrypted? A password is never on a command line or in a log."""

from __future__ import annotations

import argparse
import base64
import binascii
import hashlib
import hmac
import ipaddress
import os
import ssl
import sys
import threading
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from workers.errors import InputError


@dataclass(frozen=True, kw_only=True)
class Access:
    """The protection of one server; by default there is none, which is for the loopback interface.

    Attributes:
        cert: certificate chain, PEM; ``key``: its private key, PEM, without a passphrase. Both or neither.
        user: name for HTTP basic authentication; ``password``: its password. Both or neither.

    Raises:
        InputError: one of a pair without the other, an empty password, or a colon in the name.
    """

    cert: Path | None = None
    key: Path | None = None
    user: str | None = None
    password: str | None = field(default=None, repr=False)

    def __post_init__(self) -> None:
        if (self.cert is None) != (self.key is None):
            raise InputError("TLS needs a certificate and its key: give both --tls-cert and --tls-key, or neither.")
        if (self.user is None) != (self.password is None):
            raise InputError(
                "authentication needs a name and a password: give --auth-user, and --auth-password-file or "
                "--auth-password-env, or none of them."
            )
        if self.password == "":
            raise InputError("the password is empty. Write one into its file or variable.")
        if self.user is not None and (":" in self.user or not self.user):
            raise InputError(f"{self.user!r} cannot be a name for basic authentication: it needs one without a colon.")

    @property
    def scheme(self) -> str:
        """``https`` with a certificate, else ``http``."""
        return "http" if self.cert is None else "https"

    def tls_context(self) -> ssl.SSLContext | None:
        """What secures connections; ``None`` without a certificate.

        Raises:
            InputError: the files cannot be read, do not belong together, or the key has a passphrase.
        """
        if self.cert is None or self.key is None:
            return None
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        try:
            # An empty passphrase: without one a locked key would make OpenSSL ask at a terminal nobody sees.
            context.load_cert_chain(self.cert, self.key, password="")
        except OSError as error:
            reason = error.strerror or error
            raise InputError(
                f"the certificate {self.cert} and the key {self.key} cannot be used: {reason}. "
                "Give PEM files that belong together, the key without a passphrase."
            ) from error
        return context

    def admits(self, authorization: str | None) -> bool:
        """Whether a request with this ``Authorization`` header may be answered; takes as long whatever it says."""
        if self.user is None:
            return True
        wanted = f"{self.user}:{self.password}".encode()
        given = _credentials(authorization or "")
        return hmac.compare_digest(hashlib.sha256(given).digest(), hashlib.sha256(wanted).digest())

    def check_exposure(self, listen: str, *, insecure: bool) -> None:
        """Refuse to let a password travel in clear over a network.

        Raises:
            InputError: authentication without TLS on an address that others can reach, and not ``insecure``.
        """
        if self.user is not None and self.cert is None and not insecure and not is_loopback(listen):
            raise InputError(
                f"on {listen} the password of {self.user} would travel over the network in clear. "
                "Add --tls-cert and --tls-key, listen on 127.0.0.1, or say --insecure if something else encrypts it."
            )


OPEN = Access()
"""No protection."""


class ServedCertificate:
    """What secures connections now: the certificate on disk, which may be renewed at any time.

    Renewed files that cannot be used, as while only one of the two is written, are told once on standard error, and the
    certificate before them stays in use. May be used from several threads.

    Raises:
        InputError: the first ones cannot be used.
    """

    def __init__(self, access: Access) -> None:
        self._access, self._lock = access, threading.Lock()
        self._files = [file for file in (access.cert, access.key) if file is not None]
        self._stamps, self._context = self._stamp(), access.tls_context()

    def context(self) -> ssl.SSLContext | None:
        """For the next connection; ``None`` without a certificate."""
        with self._lock:
            if (stamps := self._stamp()) != self._stamps:
                self._stamps = stamps
                try:
                    self._context = self._access.tls_context()
                except InputError as error:
                    sys.stderr.write(f"{error} The certificate from before stays in use.\n")
            return self._context

    def _stamp(self) -> list[tuple[int, int, int]]:
        """What changes with a file; a file that is not there has nothing."""
        stamps = []
        for file in self._files:
            try:
                found = file.stat()
            except OSError:
                continue
            stamps.append((found.st_ino, found.st_mtime_ns, found.st_size))
        return stamps


def _credentials(authorization: str) -> bytes:
    """``name:password`` of a basic authorization; empty when it is none."""
    scheme, _, encoded = authorization.partition(" ")
    if scheme.lower() != "basic":
        return b""
    try:
        return base64.b64decode(encoded.strip(), validate=True)
    except (binascii.Error, ValueError):
        return b""


def is_loopback(listen: str) -> bool:
    """Whether only this machine can reach an address; a name other than ``localhost`` may lead anywhere."""
    try:
        return ipaddress.ip_address(listen).is_loopback
    except ValueError:
        return listen == "localhost"


def add_flags(parser: argparse.ArgumentParser) -> None:
    """The flags ``access_of`` reads."""
    parser.add_argument("--tls-cert", type=Path, metavar="FILE", help="serve /metrics over TLS: certificate, PEM")
    parser.add_argument("--tls-key", type=Path, metavar="FILE", help="its private key, PEM")
    parser.add_argument("--auth-user", metavar="NAME", help="ask for this name (HTTP basic authentication)")
    password = parser.add_mutually_exclusive_group()
    password.add_argument("--auth-password-file", type=Path, metavar="FILE", help="file that holds its password")
    password.add_argument("--auth-password-env", metavar="NAME", help="environment variable that holds its password")
    parser.add_argument("--insecure", action="store_true", help="allow a password without TLS beyond this machine")


def access_of(found: argparse.Namespace, *, listen: str, environ: Mapping[str, str] = os.environ) -> Access:
    """The protection that flags ask for, on an address.

    Raises:
        InputError: the flags do not go together, the password cannot be had, or it would travel in clear.
    """
    access = Access(
        cert=found.tls_cert,
        key=found.tls_key,
        user=found.auth_user,
        password=_password(found.auth_password_file, found.auth_password_env, environ),
    )
    access.check_exposure(listen, insecure=found.insecure)
    return access


def _password(file: Path | None, variable: str | None, environ: Mapping[str, str]) -> str | None:
    if variable is not None:
        if variable not in environ:
            raise InputError(f"there is no environment variable {variable} to take the password from. Set it.")
        return environ[variable]
    if file is None:
        return None
    try:
        # Editors end a file with a line end, which nobody means to be part of the password.
        return file.read_text(encoding="utf-8").removesuffix("\n").removesuffix("\r")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not UTF-8 text"
        raise InputError(f"the password file {file} cannot be read: {reason}. Name one this user can read.") from error
