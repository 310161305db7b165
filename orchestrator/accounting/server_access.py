"""How a Prometheus server is reached: name and password, token, certificates. Secrets are in files, and never shown.

The file that says so has the keys of Prometheus' own HTTP client configuration, as far as they are honoured here::

    basic_auth: {username: reader, password_file: /etc/wattledger/password}
    authorization: {credentials_file: /etc/wattledger/token}
    tls_config: {ca_file: ca.pem, cert_file: client.pem, key_file: client.key}
"""

from __future__ import annotations

import ssl
import urllib.parse
from dataclasses import dataclass, field
from pathlib import Path

from pydantic import Field

from orchestrator.manifest.document import read_document
from workers.errors import InputError, ManifestError
from workers.section import Section, section_problems
from workers.telemetry.access import is_loopback


class _Basic(Section):
    username: str = Field(min_length=1)
    password_file: str


class _Bearer(Section):
    credentials_file: str


class _Tls(Section):
    ca_file: str | None = None
    cert_file: str | None = None
    key_file: str | None = None


class _HttpConfig(Section):
    basic_auth: _Basic | None = None
    authorization: _Bearer | None = None
    tls_config: _Tls = _Tls()


@dataclass(frozen=True, kw_only=True)
class ServerAccess:
    """What to show a server, and whom to trust; by default nothing, and whom this machine trusts.

    Attributes:
        basic: name and password; ``token``: a bearer token. At most one of the two.
        ca: certificates of authorities to trust instead of this machine's, PEM.
        cert: own certificate, PEM; ``key``: its private key. Both or neither.
    """

    basic: tuple[str, str] | None = field(default=None, repr=False)
    token: str | None = field(default=None, repr=False)
    ca: Path | None = None
    cert: Path | None = None
    key: Path | None = None

    def check_exposure(self, url: str) -> None:
        """Refuse to send a secret in clear over a network.

        Raises:
            InputError: a name, password or token for a server beyond this machine that is not asked over TLS.
        """
        if self.basic is None and self.token is None:
            return
        found = urllib.parse.urlsplit(url)
        if found.scheme != "https" and not is_loopback(found.hostname or ""):
            raise InputError(f"a password or token would travel in clear to {url}. Name the server with https://.")

    def verify(self) -> ssl.SSLContext | bool:
        """What checks the server's certificate, for the client library.

        Raises:
            InputError: a certificate cannot be used.
        """
        if self.ca is None and self.cert is None:
            return True
        try:
            context = ssl.create_default_context(cafile=self.ca)
            if self.cert is not None:
                context.load_cert_chain(self.cert, self.key, password="")
        except OSError as error:
            named = " and ".join(str(path) for path in (self.ca, self.cert, self.key) if path)
            raise InputError(
                f"the certificates {named} cannot be used: {error.strerror or error}. Give PEM files."
            ) from error
        return context


OPEN = ServerAccess()
"""No secrets."""


def server_access(path: Path) -> ServerAccess:
    """What a configuration file says; relative paths in it are relative to it.

    Raises:
        InputError: it cannot be read or used, or a file it names cannot; the message never shows what is in them.
    """
    try:
        document = read_document(_text(path, "the configuration"), source=str(path))
    except ManifestError as error:
        told = "; ".join(f"line {line}: {problem}" for line, problem in error.problems)
        raise InputError(f"{path} is no YAML: {told}.") from error
    problems = [f"line {line}: {told}" for line, told in document.problems]
    problems += [
        f"{'.'.join(map(str, at)) or 'file'}: {told}" for at, told in section_problems(_HttpConfig, document.data)
    ]
    if problems:
        raise InputError(f"{path} is no configuration of a Prometheus client: {'; '.join(problems)}.")
    wanted = _HttpConfig.model_validate(document.data)
    if wanted.basic_auth is not None and wanted.authorization is not None:
        raise InputError(f"{path} gives basic_auth and authorization. Keep one of them.")
    tls = wanted.tls_config
    if (tls.cert_file is None) != (tls.key_file is None):
        raise InputError(f"{path}: tls_config needs cert_file and key_file, or neither.")

    def beside(name: str | None) -> Path | None:
        return None if name is None else path.parent / name

    basic, bearer = wanted.basic_auth, wanted.authorization
    return ServerAccess(
        basic=None if basic is None else (basic.username, _secret(path.parent / basic.password_file)),
        token=None if bearer is None else _secret(path.parent / bearer.credentials_file),
        ca=beside(tls.ca_file),
        cert=beside(tls.cert_file),
        key=beside(tls.key_file),
    )


def _secret(path: Path) -> str:
    """A file's only line."""
    secret = _text(path, "the secret").removesuffix("\n").removesuffix("\r")
    if not secret or not secret.isprintable():
        raise InputError(f"the secret in {path} is empty or has more than one line. Write it as the only line.")
    return secret


def _text(path: Path, what: str) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not UTF-8 text"
        raise InputError(f"{what} {path} cannot be read: {reason}. Name a file this user can read.") from error
