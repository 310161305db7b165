"""A real Prometheus as the witness, and in the place of a lost log, through restarts, outages and failing answers.

Histories are written with ``promtool``, so that a job of an hour takes no hour; one server scrapes a live exporter.
"""

from __future__ import annotations

import http.server
import json
import math
import subprocess
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

from orchestrator.accounting.prometheus import PrometheusClient
from orchestrator.accounting.rows import Account, build_accounts
from orchestrator.accounting.server_access import ServerAccess, server_access
from orchestrator.keeper import Kept
from orchestrator.lifecycle import AttemptRecord, AttemptState, JobRecord, JobState
from orchestrator.monitoring.server import LocalPrometheus
from tests.certificates import self_signed
from tests.prometheus_server import DIRECT, ask, wait_until
from tests.unit.fake_prometheus import ENERGY, LEASE
from tests.unit.ledger import Ledger
from workers.contract import Device, EnergyEntry, JobSpec, Lease, Method, Phase
from workers.errors import UnreachableError
from workers.metric_log import PHASE_END, PHASE_START, SAMPLES, MetricLog
from workers.telemetry.exporter import AgentCollector, serve
from workers.telemetry.snapshot import DeviceStatus, LeaseStatus, NodeSnapshot
from workers.units import NS_PER_S

pytestmark = pytest.mark.prometheus

LASTS_S = 3600
SCRAPE_S = 5
DEVICE = "GPU-real"
TOLERANCE_PERCENT = 0.5


def drawn_j(seconds: float) -> float:
    """Energy since 0 of a device that draws 200 W, give or take 100 W twice a minute."""
    pulse = 2 * math.pi / 31
    return 200 * seconds + 100 / pulse * (1 - math.cos(pulse * seconds))


class History:
    """A job of an hour that ended some hours ago, in a server's blocks and in a ledger."""

    def __init__(self, root: Path) -> None:
        self.start_s = (int(time.time()) - 3 * LASTS_S) // 60 * 60
        self.data, self.ledger = root / "server" / "data", Ledger(root / "home")
        self._text = root / "history.txt"

    def scraped(self, *absent: tuple[float, float], resets_s: float | None = None) -> None:
        """Have the server know the device from an hour before to an hour after, but for the times that are absent."""
        lines = [f"# TYPE {ENERGY.removesuffix('_total')} counter"]
        labels = f'device="{DEVICE}",node="node-1",model="L4",kind="gpu",method="counter"'
        times = range(-LASTS_S, 2 * LASTS_S, SCRAPE_S)
        seen = [second for second in times if not any(start < second < end for start, end in absent)]
        for second in seen:
            since_s = second + LASTS_S
            value = drawn_j(since_s) - (drawn_j(resets_s + LASTS_S) if resets_s and second > resets_s else 0.0)
            lines.append(f"{ENERGY}{{{labels}}} {value:.3f} {self.start_s + second}")
        lines += [f"# TYPE {LEASE.removesuffix('_info')} info"]
        lease = f'device="{DEVICE}",node="node-1",job_id="j",attempt="1",phase="train"'
        lines += [f"{LEASE}{{{lease}}} 1 {self.start_s + second}" for second in seen if 0 <= second <= LASTS_S]
        self._text.write_text("\n".join([*lines, "# EOF", ""]))
        command = ["promtool", "tsdb", "create-blocks-from", "openmetrics", "-q", str(self._text), str(self.data)]
        subprocess.run(command, check=True, capture_output=True, timeout=60)

    def ns(self, seconds: float) -> int:
        return round((self.start_s + seconds) * NS_PER_S)

    def logged(self) -> None:
        """Have the energy log know the job, exactly, second by second."""
        marks = [round(1000 * drawn_j(LASTS_S + second)) for second in range(LASTS_S + 1)]
        self.ledger.book(
            *(
                EnergyEntry(
                    start_ns=self.ns(second),
                    end_ns=self.ns(second + 1),
                    device=DEVICE,
                    model="L4",
                    kind="gpu",
                    energy_mj=marks[second + 1] - marks[second],
                    job_id="j",
                    attempt=1,
                    phase=Phase.TRAIN,
                    share=1.0,
                    method=Method.COUNTER,
                )
                for second in range(LASTS_S)
            )
        )

    def account(self, prometheus: PrometheusClient) -> Account:
        return account(self.ledger, prometheus, self.ns(0), self.ns(LASTS_S))

    @property
    def truth_kwh(self) -> float:
        return (drawn_j(2 * LASTS_S) - drawn_j(LASTS_S)) / 3.6e6


def account(ledger: Ledger, prometheus: PrometheusClient, start_ns: int, end_ns: int) -> Account:
    """The books of job ``j``, which trained from start to end by its metric log."""
    with MetricLog(ledger.home.metrics("j", 1), clock_ns=lambda: start_ns) as log:
        log.log(PHASE_START, 1.0, phase=Phase.TRAIN, time_ns=start_ns)
        log.log(SAMPLES, 1000, phase=Phase.TRAIN, time_ns=start_ns + 1)
        log.log(PHASE_END, 1.0, phase=Phase.TRAIN, time_ns=end_ns)
    tried = AttemptRecord(
        number=1,
        state=AttemptState.SUCCEEDED,
        reason=None,
        nodes=("f00d",),
        accelerator="L4",
        started_ns=start_ns - NS_PER_S,
        ended_ns=end_ns + NS_PER_S,
    )
    record = JobRecord(
        spec=JobSpec.model_validate({"job_id": "j", "name": "study", "task": "digits", "model": "tiny/vit"}),
        run_id="run",
        sequence=0,
        state=JobState.SUCCEEDED,
        reason=None,
        submitted_ns=start_ns - NS_PER_S,
        attempts=(tried,),
    )
    (built,) = build_accounts(ledger.home, [record], prometheus=prometheus)
    return built


@pytest.fixture
def history(tmp_path: Path) -> History:
    return History(tmp_path)


def off_percent(account: Account, truth_kwh: float) -> float:
    assert account.row.energy_kwh is not None
    return 100 * abs(account.row.energy_kwh - truth_kwh) / truth_kwh


MINUTE = (1800 - 30, 1800 + 30)


def test_a_server_that_was_down_for_a_minute_still_bears_witness(history: History) -> None:
    history.scraped(MINUTE)
    history.logged()
    with LocalPrometheus(history.data.parent) as server, PrometheusClient(server.url) as prometheus:
        found = history.account(prometheus)
    assert found.row.energy_disagreement_percent is not None
    assert abs(found.row.energy_disagreement_percent) < TOLERANCE_PERCENT
    assert off_percent(found, history.truth_kwh) < 1e-6
    assert (found.row.energy_quality, found.notes) == ((), ())


def test_a_lost_log_is_made_good_by_a_server_that_was_down_for_a_minute(history: History) -> None:
    history.scraped(MINUTE)
    with LocalPrometheus(history.data.parent) as server, PrometheusClient(server.url) as prometheus:
        found = history.account(prometheus)
    assert off_percent(found, history.truth_kwh) < TOLERANCE_PERCENT
    assert (found.row.energy_method, found.row.energy_quality) == ("counter", ("fallback",))


def test_a_counter_that_starts_anew_in_the_middle_of_a_job_is_bridged(history: History) -> None:
    history.scraped(resets_s=1801)
    history.logged()
    with LocalPrometheus(history.data.parent) as server, PrometheusClient(server.url) as prometheus:
        found = history.account(prometheus)
    assert found.row.energy_disagreement_percent is not None
    assert abs(found.row.energy_disagreement_percent) < TOLERANCE_PERCENT
    assert {flag.value for flag in found.witness.quality} == {"reset"}


def test_a_server_that_was_down_for_two_minutes_at_an_end_knows_nothing_of_it(history: History) -> None:
    history.scraped((-60, 60))
    history.logged()
    with LocalPrometheus(history.data.parent) as server, PrometheusClient(server.url) as prometheus:
        found = history.account(prometheus)
    assert found.row.energy_disagreement_percent is None
    assert "do not reach both ends of attempt 1" in found.row.reasons["energy_disagreement_percent"]
    assert off_percent(found, history.truth_kwh) < 1e-6


class _Flaky(http.server.BaseHTTPRequestHandler):
    """Passes every second request on, with its authorization, and answers the others 503."""

    upstream = ""
    count = 0

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        type(self).count += 1
        if self.count % 2:
            self._reply(503, b"Service Unavailable")
            return
        kept = {name: self.headers[name] for name in ("Content-Type", "Authorization") if name in self.headers}
        asked = urllib.request.Request(self.upstream + self.path, data=body, headers=kept)
        try:
            with DIRECT.open(asked, timeout=10) as answer:
                self._reply(answer.status, answer.read())
        except urllib.error.HTTPError as error:
            self._reply(error.code, error.read())

    def _reply(self, status: int, body: bytes) -> None:
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Say nothing."""


@pytest.fixture
def flaky() -> Iterator[http.server.ThreadingHTTPServer]:
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), _Flaky)
    thread = threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True)
    thread.start()
    yield server
    server.shutdown()
    server.server_close()
    thread.join()


def test_a_server_that_answers_503_half_of_the_time_is_asked_until_it_tells(
    history: History, flaky: http.server.ThreadingHTTPServer
) -> None:
    history.scraped()
    waited: list[float] = []
    with LocalPrometheus(history.data.parent) as server:
        _Flaky.upstream = server.url
        url = f"http://127.0.0.1:{flaky.server_address[1]}"
        with PrometheusClient(url, sleep_s=waited.append) as prometheus:
            found = history.account(prometheus)
    assert off_percent(found, history.truth_kwh) < TOLERANCE_PERCENT
    assert found.row.energy_quality == ("fallback",)
    assert waited


def test_a_server_that_reads_few_samples_at_once_is_asked_in_parts(tmp_path: Path, history: History) -> None:
    history.scraped()
    with LocalPrometheus(history.data.parent) as server:
        limited = _limited(server, tmp_path)
        with limited, PrometheusClient(limited.url) as prometheus:
            found = history.account(prometheus)
    assert off_percent(found, history.truth_kwh) < TOLERANCE_PERCENT


def _limited(server: LocalPrometheus, tmp_path: Path) -> LocalPrometheus:
    """Another server over the same history, which reads 200 samples at most: of an hour there are 744."""
    program = tmp_path / "prometheus-limited"
    program.write_text('#!/bin/sh\nexec prometheus --query.max-samples=200 "$@"\n')
    program.chmod(0o755)
    copy = tmp_path / "copy"
    copy.mkdir()
    (copy / "data").symlink_to(server.folder / "data")
    return LocalPrometheus(copy, program=program)


class Board:
    """One live board whose energy since it began is known at any time."""

    def __init__(self) -> None:
        self.began_s = time.time()

    def energy_j(self, time_s: float) -> float:
        return drawn_j(time_s - self.began_s)

    def snapshot(self) -> NodeSnapshot:
        status = DeviceStatus(
            device=Device(uuid=DEVICE, index=0, model="L4", method=Method.COUNTER),
            up=True,
            energy_mj=round(1000 * self.energy_j(time.time())),
            power_mw=200_000,
            limit_mw=None,
            utilization=None,
            read_errors=0,
        )
        lease = Lease(
            lease_id="l", job_id="j", attempt=1, devices=(DEVICE,), pid=1, cpus=1.0, opened_ns=0, phase=Phase.TRAIN
        )
        held = LeaseStatus(lease=lease, energy_mj=0, open=True)
        return NodeSnapshot(node="node-1", devices=(status,), leases=(held,), read_seconds=0.001)


def test_a_lost_log_is_made_good_by_a_server_that_was_started_again_in_the_middle_of_the_job(tmp_path: Path) -> None:
    board = Board()

    def scraped(server: LocalPrometheus) -> None:
        server.set_targets([f"127.0.0.1:{exporter.port}"])
        server.wait_for_targets()
        wait_until(lambda: ask(server.url, f"count_over_time({ENERGY}[2s]) >= 5"))

    with serve(AgentCollector(board.snapshot)) as exporter:
        with LocalPrometheus(tmp_path / "server", interval="200ms") as server:
            scraped(server)
            start_s = time.time() - 0.5
        with LocalPrometheus(tmp_path / "server", interval="200ms") as server:
            scraped(server)
            end_s = time.time() - 0.5
            with PrometheusClient(server.url) as prometheus:
                found = account(
                    Ledger(tmp_path / "home"), prometheus, round(start_s * NS_PER_S), round(end_s * NS_PER_S)
                )
    assert off_percent(found, (board.energy_j(end_s) - board.energy_j(start_s)) / 3.6e6) < TOLERANCE_PERCENT
    assert (found.row.energy_method, found.row.energy_quality) == ("counter", ("fallback",))


HASH_OF_TEST = "$2b$12$hNf2lSsxfm0.i4a.1kVpSOVyBCfIB51VRjgBUyv6kdnyTlgWj81Ay"
"""bcrypt of the password ``test``, from Prometheus' guide to basic authentication."""


@pytest.fixture
def protected(tmp_path: Path) -> Iterator[str]:
    """The URL of a server with a certificate of its own that asks ``reader`` for a password."""
    cert, key = self_signed(tmp_path)
    web = {"tls_server_config": {"cert_file": str(cert), "key_file": str(key)}}
    (tmp_path / "web.yml").write_text(json.dumps(web | {"basic_auth_users": {"reader": HASH_OF_TEST}}))
    (tmp_path / "prometheus.yml").write_text("{}")
    command = [
        "prometheus",
        f"--config.file={tmp_path / 'prometheus.yml'}",
        f"--web.config.file={tmp_path / 'web.yml'}",
    ]
    command += ["--web.listen-address=127.0.0.1:0", f"--storage.tsdb.path={tmp_path / 'data'}"]
    kept = Kept(command, tmp_path / "prometheus.log")
    try:
        yield f"https://127.0.0.1:{wait_until(kept.listening_port)}"
    finally:
        kept.end()


def test_a_password_and_an_authority_of_our_own_reach_a_server_that_asks_for_them(
    tmp_path: Path, protected: str
) -> None:
    (tmp_path / "password").write_text("test\n")
    (tmp_path / "http.yml").write_text(
        "basic_auth: {username: reader, password_file: password}\ntls_config: {ca_file: agent.crt}\n"
    )
    with PrometheusClient(protected, access=server_access(tmp_path / "http.yml")) as prometheus:
        assert prometheus.series("up", {"job": "none"}, 0, NS_PER_S) == ()


def test_a_server_whose_certificate_nobody_vouches_for_is_not_asked(protected: str) -> None:
    with (
        PrometheusClient(protected, deadline_s=0) as prometheus,
        pytest.raises(UnreachableError, match="CERTIFICATE_VERIFY_FAILED"),
    ):
        prometheus.series("up", {"job": "none"}, 0, NS_PER_S)


def test_a_server_that_wants_a_password_is_a_reason(tmp_path: Path, protected: str) -> None:
    with (
        PrometheusClient(protected, access=ServerAccess(ca=tmp_path / "agent.crt")) as prometheus,
        pytest.raises(UnreachableError, match="status 401"),
    ):
        prometheus.series("up", {"job": "none"}, 0, NS_PER_S)
