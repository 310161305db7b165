"""Where the protection of agents is, as a file says it: refused with what is wrong, handed on without a secret."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.certificates import self_signed
from workers.agent import parse
from workers.errors import InputError
from workers.telemetry.access import Access
from workers.telemetry.agent_access import UNPROTECTED, AgentAccess

KNOWN = "tls_cert, tls_key, tls_ca, auth_user, auth_password_file"


def written(folder: Path, text: str) -> Path:
    file = folder / "access.toml"
    file.write_text(text)
    return file


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("tls_cert =", f"Write TOML with any of {KNOWN}"),
        ('password = "secret"', "has password, which is not known or no text.*a password stays in a file of its own"),
        ("auth_user = 7", "has auth_user, which is not known or no text"),
        ('tls_cert = "a.crt"', "give both --tls-cert and --tls-key"),
        ('auth_user = "prometheus"', "authentication needs a name and a password"),
        ('auth_user = "a:b"\nauth_password_file = "p"', "without a colon"),
    ],
)
def test_a_file_that_does_not_say_it_is_refused(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        AgentAccess.read(written(tmp_path, text))


def test_a_file_that_is_not_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=f"none cannot be read: No such file or directory. Write TOML with .*{KNOWN}"):
        AgentAccess.read(tmp_path / "none")


def test_a_password_that_would_travel_in_clear_is_refused_before_anything_starts() -> None:
    access = AgentAccess(auth_user="prometheus", auth_password_file=Path("/etc/password"))
    access.check_exposure("127.0.0.1")
    with pytest.raises(InputError, match="would travel over the network in clear"):
        access.check_exposure("0.0.0.0")
    UNPROTECTED.check_exposure("0.0.0.0")


def test_what_it_says_is_what_an_agent_is_started_with_and_the_password_is_not_in_it(tmp_path: Path) -> None:
    cert, key = self_signed(tmp_path)
    (tmp_path / "password").write_text("geheim\n")
    text = 'tls_cert = "agent.crt"\ntls_key = "agent.key"\ntls_ca = "ca.crt"\n'
    access = AgentAccess.read(written(tmp_path, f'{text}auth_user = "prometheus"\nauth_password_file = "password"\n'))
    assert access.tls_ca == tmp_path / "ca.crt"
    assert "geheim" not in " ".join(access.flags())
    options, _ = parse([*access.flags(), "--listen", "0.0.0.0"])
    assert options.access == Access(cert=cert, key=key, user="prometheus", password="geheim")


def test_nothing_said_is_no_protection(tmp_path: Path) -> None:
    assert AgentAccess.read(written(tmp_path, "")) == UNPROTECTED
    assert UNPROTECTED.flags() == []
