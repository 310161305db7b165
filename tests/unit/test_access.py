"""TLS and passwords in front of the metrics: refused when half given, checked by real requests."""

from __future__ import annotations

import base64
import http.client
import json
import os
import socket
import ssl
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from tests.certificates import self_signed
from tests.unit.test_exporter import EVERYTHING
from workers.agent import parse
from workers.errors import InputError
from workers.telemetry.access import Access, is_loopback
from workers.telemetry.exporter import AgentCollector, Exporter, serve

ROOT = Path(__file__).resolve().parent.parent.parent
SECRET = "pä:ss word"


def request(url: str, *, cert: Path | None = None, user: str | None = None, password: str = "") -> tuple[int, str]:
    """Status and body of a GET; TLS is verified against ``cert``."""
    context = ssl.create_default_context(cafile=str(cert)) if cert else None
    handlers = [urllib.request.ProxyHandler({}), urllib.request.HTTPSHandler(context=context)]
    asked = urllib.request.Request(url)
    if user is not None:
        asked.add_header("Authorization", "Basic " + base64.b64encode(f"{user}:{password}".encode()).decode())
    try:
        with urllib.request.build_opener(*handlers).open(asked, timeout=10) as response:
            return response.status, response.read().decode()
    except urllib.error.HTTPError as refusal:
        with refusal:
            return refusal.code, refusal.read().decode()


@pytest.fixture(scope="module")
def pem(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A certificate and its key."""
    return self_signed(tmp_path_factory.mktemp("pem"))


@pytest.fixture
def secured(pem: tuple[Path, Path]) -> Iterator[Exporter]:
    """An exporter with TLS and a password."""
    access = Access(cert=pem[0], key=pem[1], user="prometheus", password=SECRET)
    with serve(AgentCollector(lambda: EVERYTHING), access=access) as exporter:
        yield exporter


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"cert": Path("a")}, "give both --tls-cert and --tls-key, or neither"),
        ({"key": Path("a")}, "give both --tls-cert and --tls-key, or neither"),
        ({"user": "a"}, "needs a name and a password"),
        ({"password": "a"}, "needs a name and a password"),
        ({"user": "a", "password": ""}, "the password is empty"),
        ({"user": "a:b", "password": "c"}, "it needs one without a colon"),
        ({"user": "", "password": "c"}, "it needs one without a colon"),
    ],
)
def test_half_a_protection_is_refused(fields: dict[str, object], message: str) -> None:
    with pytest.raises(InputError, match=message):
        Access(**fields)


def test_a_certificate_that_cannot_be_used_is_refused(tmp_path: Path, pem: tuple[Path, Path]) -> None:
    locked = self_signed(tmp_path, passphrase=b"secret", name="locked")
    for cert, key in ((tmp_path / "none", pem[1]), (pem[1], pem[0]), locked, (locked[0], pem[1])):
        with pytest.raises(InputError, match=r"cannot be used: .* Give PEM files that belong together"):
            serve(AgentCollector(lambda: EVERYTHING), access=Access(cert=cert, key=key))


@pytest.mark.parametrize(
    ("user", "password"),
    [
        (None, ""),
        ("prometheus", ""),
        ("prometheus", "wrong"),
        ("root", SECRET),
        ("", SECRET),
        ("prometheus", SECRET + " "),
    ],
)
def test_without_the_right_name_and_password_the_answer_is_401(
    secured: Exporter, pem: tuple[Path, Path], user: str | None, password: str
) -> None:
    status, body = request(secured.url, cert=pem[0], user=user, password=password)
    assert (status, body) == (401, "a name and a password are needed\n")


@pytest.mark.parametrize("header", ["Basic", "Basic !", "Basic cGF0aA==", "Bearer abc", "basic\tabc", "é"])
def test_an_authorization_that_is_none_is_not_admitted(header: str) -> None:
    assert not Access(user="prometheus", password=SECRET).admits(header)


def test_the_right_password_gets_the_metrics_over_tls(secured: Exporter, pem: tuple[Path, Path]) -> None:
    status, body = request(secured.url, cert=pem[0], user="prometheus", password=SECRET)
    assert status == 200
    assert "wattledger_device_up" in body
    assert secured.url.startswith("https://127.0.0.1:")


def test_a_password_works_without_tls_on_the_loopback_interface() -> None:
    access = Access(user="prometheus", password=SECRET)
    with serve(AgentCollector(lambda: EVERYTHING), access=access) as exporter:
        assert request(exporter.url)[0] == 401
        assert request(exporter.url, user="prometheus", password=SECRET)[0] == 200


def test_the_certificate_is_the_one_given(secured: Exporter, tmp_path: Path) -> None:
    other, _ = self_signed(tmp_path)
    with pytest.raises(urllib.error.URLError, match="CERTIFICATE_VERIFY_FAILED"):
        request(secured.url, cert=other)


def test_a_certificate_renewed_on_disk_is_taken_up_and_half_of_one_is_not(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    old, new = tmp_path / "old", tmp_path / "new"
    for folder in (old, new):
        folder.mkdir()
        self_signed(folder)
    cert, key = tmp_path / "agent.crt", tmp_path / "agent.key"
    renew(old, cert, key)
    with serve(AgentCollector(lambda: EVERYTHING), access=Access(cert=cert, key=key)) as exporter:
        assert request(exporter.url, cert=old / "agent.crt")[0] == 200
        renew(new, cert)
        for _ in range(2):
            assert request(exporter.url, cert=old / "agent.crt")[0] == 200
        assert capfd.readouterr().err.count("The certificate from before stays in use.") == 1
        renew(new, key)
        assert request(exporter.url, cert=new / "agent.crt")[0] == 200
        with pytest.raises(urllib.error.URLError, match="CERTIFICATE_VERIFY_FAILED"):
            request(exporter.url, cert=old / "agent.crt")
        key.unlink()
        assert request(exporter.url, cert=new / "agent.crt")[0] == 200
    assert capfd.readouterr().err.count("No such file") == 1


def renew(source: Path, *files: Path) -> None:
    """Put the source's files in place, each in one step, as those who renew certificates do."""
    for file in files:
        draft = file.with_suffix(".new")
        draft.write_bytes((source / file.name).read_bytes())
        draft.replace(file)


def test_a_client_that_says_nothing_holds_up_nobody(
    secured: Exporter, pem: tuple[Path, Path], capfd: pytest.CaptureFixture[str]
) -> None:
    with socket.create_connection(("127.0.0.1", secured.port)):
        assert request(secured.url, cert=pem[0], user="prometheus", password=SECRET)[0] == 200
    with pytest.raises((OSError, http.client.HTTPException)):
        request(secured.url.replace("https://", "http://"), user="prometheus", password=SECRET)
    assert request(secured.url, cert=pem[0], user="prometheus", password=SECRET)[0] == 200
    assert capfd.readouterr() == ("", "")


def test_a_password_is_not_shown_where_its_holder_is() -> None:
    assert SECRET not in repr(Access(user="prometheus", password=SECRET))


@pytest.mark.parametrize("listen", ["0.0.0.0", "::", "192.0.2.1", "node-a"])
def test_a_password_in_clear_over_a_network_is_refused_with_the_ways_out(listen: str, tmp_path: Path) -> None:
    (tmp_path / "password").write_text(SECRET)
    flags = ["--listen", listen, "--auth-user", "prometheus", "--auth-password-file", str(tmp_path / "password")]
    with pytest.raises(InputError) as refused:
        parse(flags)
    assert str(refused.value) == (
        f"on {listen} the password of prometheus would travel over the network in clear. "
        "Add --tls-cert and --tls-key, listen on 127.0.0.1, or say --insecure if something else encrypts it."
    )
    options, _ = parse([*flags, "--insecure"])
    assert options.access == Access(user="prometheus", password=SECRET)
    options, _ = parse([*flags, "--tls-cert", "a.crt", "--tls-key", "a.key"])
    assert options.access.scheme == "https"


@pytest.mark.parametrize("written", [SECRET, f"{SECRET}\n", f"{SECRET}\r\n"])
def test_a_password_comes_from_a_file_less_the_end_of_its_line(written: str, tmp_path: Path) -> None:
    file = tmp_path / "password"
    file.write_bytes(written.encode())
    options, _ = parse(["--auth-user", "prometheus", "--auth-password-file", str(file)])
    assert options.access.password == SECRET


def test_a_password_comes_from_a_variable_that_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    flags = ["--auth-user", "prometheus", "--auth-password-env", "SCRAPE_PASSWORD"]
    with pytest.raises(InputError, match="there is no environment variable SCRAPE_PASSWORD"):
        parse(flags)
    monkeypatch.setenv("SCRAPE_PASSWORD", SECRET)
    options, _ = parse(flags)
    assert options.access.password == SECRET


def test_a_password_file_that_cannot_be_read_is_refused(tmp_path: Path) -> None:
    (tmp_path / "bytes").write_bytes(b"\xff\xfe\xfd")
    for name, why in (("none", "No such file"), ("bytes", "not UTF-8")):
        with pytest.raises(InputError, match=why):
            parse(["--auth-user", "prometheus", "--auth-password-file", str(tmp_path / name)])


@pytest.mark.parametrize(
    ("listen", "expected"),
    [("127.0.0.1", True), ("127.8.8.8", True), ("::1", True), ("localhost", True)]
    + [(listen, False) for listen in ("0.0.0.0", "::", "10.0.0.1", "", "node-a")],
)
def test_only_addresses_of_this_machine_alone_are_loopback(listen: str, expected: bool) -> None:
    assert is_loopback(listen) is expected


def test_an_agent_serves_over_tls_and_never_shows_its_password(tmp_path: Path, pem: tuple[Path, Path]) -> None:
    (tmp_path / "password").write_text(f"{SECRET}\n")
    command = [sys.executable, "-m", "workers.agent", "--home", str(tmp_path / "ledger"), "--node", "n"]
    command += ["--meter", "simulated:T4", "--tls-cert", str(pem[0]), "--tls-key", str(pem[1])]
    command += ["--auth-user", "prometheus", "--auth-password-file", str(tmp_path / "password")]
    process = subprocess.Popen(
        command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=dict(os.environ)
    )
    try:
        assert process.stdout is not None
        line = process.stdout.readline()
        told = json.loads(line)
        assert request(told["metrics_url"], cert=pem[0])[0] == 401
        status, body = request(told["metrics_url"], cert=pem[0], user="prometheus", password=SECRET)
        shown = psutil.Process(process.pid).cmdline()
    finally:
        process.terminate()
        out, err = process.communicate(timeout=30)
    assert status == 200
    assert 'wattledger_device_up{device="GPU-sim-' in body
    assert SECRET not in "".join([line, out, err, body, *shown])
    assert process.returncode == 0


def test_an_agent_that_would_show_its_password_does_not_start(tmp_path: Path) -> None:
    (tmp_path / "password").write_text(SECRET)
    command = [sys.executable, "-m", "workers.agent", "--home", str(tmp_path / "ledger"), "--listen", "0.0.0.0"]
    command += ["--auth-user", "prometheus", "--auth-password-file", str(tmp_path / "password")]
    told = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60, check=False)
    assert told.returncode == 2
    assert "would travel over the network in clear" in told.stderr
    assert SECRET not in told.stderr
