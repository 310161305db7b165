"""Secrets are read from files, never shown, and never sent in clear."""

from __future__ import annotations

from pathlib import Path

import pytest

from orchestrator.accounting.prometheus import PrometheusClient
from orchestrator.accounting.server_access import OPEN, ServerAccess, server_access
from tests.unit.fake_prometheus import FakePrometheus
from workers.errors import InputError

BAD = {
    "not there": (None, "cannot be read: No such file or directory"),
    "no yaml": ("a: [", "is no YAML: line 1"),
    "a list": ("[1]", "is no configuration of a Prometheus client"),
    "an unknown key": ("basic_auth: {username: a, password: b}", "basic_auth.password: unknown key"),
    "half a pair": ("basic_auth: {username: a}", "basic_auth.password_file: is missing"),
    "no secret": ("authorization: {credentials_file: nothing}", "cannot be read: No such file"),
    "an empty secret": ("authorization: {credentials_file: empty}", "is empty or has more than one line"),
    "two lines": ("authorization: {credentials_file: two}", "is empty or has more than one line"),
    "two ways": (
        "basic_auth: {username: a, password_file: secret}\nauthorization: {credentials_file: secret}",
        "gives basic_auth and authorization",
    ),
    "a certificate alone": ("tls_config: {cert_file: secret}", "needs cert_file and key_file"),
}


@pytest.mark.parametrize(("text", "message"), BAD.values(), ids=BAD.keys())
def test_a_configuration_that_cannot_be_used_says_why_and_shows_no_secret(
    tmp_path: Path, text: str | None, message: str
) -> None:
    (tmp_path / "secret").write_text("hunter2")
    (tmp_path / "empty").write_text("\n")
    (tmp_path / "two").write_text("hunter2\nhunter3\n")
    config = tmp_path / "http.yml"
    if text is not None:
        config.write_text(text)
    with pytest.raises(InputError) as refused:
        server_access(config)
    assert message in str(refused.value)
    assert "hunter" not in str(refused.value)


def test_certificates_that_are_none_are_refused_when_the_client_is_made(tmp_path: Path) -> None:
    (tmp_path / "ca.pem").write_text("no certificate")
    with pytest.raises(InputError, match="cannot be used"):
        PrometheusClient("https://p.example", access=ServerAccess(ca=tmp_path / "ca.pem"))


def test_a_secret_does_not_travel_in_clear(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"would travel in clear to http://p\.example"):
        PrometheusClient("http://p.example", access=ServerAccess(token="hunter2"))
    PrometheusClient("https://p.example", access=ServerAccess(token="hunter2")).close()
    PrometheusClient("http://127.0.0.1:9", access=ServerAccess(basic=("me", "hunter2"))).close()


def test_a_secret_is_not_in_what_is_shown_of_it() -> None:
    assert "hunter2" not in repr(ServerAccess(token="hunter2", basic=("me", "hunter2")))
    assert PrometheusClient("https://me:hunter2@p.example/x").url == "https://p.example/x"


def headers(access: ServerAccess) -> str | None:
    server = FakePrometheus()
    with PrometheusClient("https://p.example", access=access, transport=server.transport()) as prometheus:
        prometheus.series("up", {"device": "a"}, 0, 1)
    return server.headers.get("Authorization")


def test_a_name_and_a_password_of_a_file_are_sent(tmp_path: Path) -> None:
    (tmp_path / "password").write_text("open sesame\n")
    (tmp_path / "http.yml").write_text("basic_auth: {username: reader, password_file: password}")
    # base64 of "reader:open sesame"
    assert headers(server_access(tmp_path / "http.yml")) == "Basic cmVhZGVyOm9wZW4gc2VzYW1l"


def test_a_token_of_a_file_is_sent(tmp_path: Path) -> None:
    (tmp_path / "token").write_text("abc.def\n")
    (tmp_path / "http.yml").write_text(f"authorization: {{credentials_file: {tmp_path / 'token'}}}")
    assert headers(server_access(tmp_path / "http.yml")) == "Bearer abc.def"


def test_without_a_configuration_nothing_is_sent() -> None:
    assert headers(OPEN) is None
