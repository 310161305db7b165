"""The witness: raw samples from the server, interpolated here, and never an exception to a user."""

from __future__ import annotations

import json
from dataclasses import replace

import httpx
import pytest

from orchestrator.accounting.energy import DeviceWindow
from orchestrator.accounting.prometheus import DEADLINE_S, MARGIN_NS, PrometheusClient
from orchestrator.accounting.witness import NO_SERVER, NO_WINDOWS, Witness, hear
from tests.unit.fake_prometheus import FakePrometheus, Waits
from workers.contract import Quality
from workers.errors import UnreachableError
from workers.units import NS_PER_S

T0_S = 1_700_000_000
URL = "http://prometheus.example:9090"
METRIC = "wattledger_device_energy_joules_total"


def ns(seconds: float) -> int:
    """Nanoseconds of ``seconds`` after the start."""
    return T0_S * NS_PER_S + round(seconds * NS_PER_S)


def client(answer: FakePrometheus | httpx.Response | Exception, waits: Waits | None = None) -> PrometheusClient:
    def handle(request: httpx.Request) -> httpx.Response:
        if isinstance(answer, Exception):
            raise answer
        assert isinstance(answer, httpx.Response)
        return answer

    transport = answer.transport() if isinstance(answer, FakePrometheus) else httpx.MockTransport(handle)
    clock = waits or Waits()
    return PrometheusClient(URL, transport=transport, monotonic_s=clock.monotonic_s, sleep_s=clock.sleep_s)


def window(start_s: float, end_s: float, joules: float, *, device: str = "GPU-a", shared: bool = False) -> DeviceWindow:
    return DeviceWindow(
        attempt=1,
        device=device,
        start_ns=ns(start_s),
        end_ns=ns(end_s),
        energy_mj=round(joules * 1000),
        shared=shared,
    )


ANSWERS = {
    "refused": (httpx.ConnectError("connection refused"), "does not answer (connection refused)"),
    "slow": (httpx.ReadTimeout("timed out"), "does not answer (timed out)"),
    "unavailable": (httpx.Response(503, text="<html>busy</html>"), "status 503 and '<html>busy</html>'"),
    "refused query": (
        httpx.Response(503, json={"status": "error", "errorType": "timeout", "error": "query timed out"}),
        "refused a query: query timed out",
    ),
    "bad json": (httpx.Response(200, text="{"), "does not answer as Prometheus does: status 200 and '{'"),
    "another service": (httpx.Response(200, json=["hello"]), "does not answer as Prometheus does"),
    "no data": (httpx.Response(200, json={"status": "success"}), "does not answer as Prometheus does"),
    "a vector": (
        httpx.Response(200, json={"status": "success", "data": {"resultType": "vector", "result": []}}),
        "a vector, where raw samples were asked for",
    ),
    "no samples": (
        httpx.Response(200, json={"status": "success", "data": {"resultType": "matrix", "result": [{"metric": {}}]}}),
        "series without samples",
    ),
    "no numbers": (
        httpx.Response(
            200,
            json={"status": "success", "data": {"resultType": "matrix", "result": [{"values": [[1, "many"]]}]}},
        ),
        "series without samples",
    ),
}


@pytest.mark.parametrize(("answer", "message"), ANSWERS.values(), ids=ANSWERS.keys())
def test_a_server_that_fails_is_unreachable_and_the_figure_has_that_for_a_reason(
    answer: httpx.Response | Exception, message: str
) -> None:
    with pytest.raises(UnreachableError) as failure:
        client(answer).counter(METRIC, "GPU-a", ns(0), ns(10))
    assert message in str(failure.value)
    heard = hear("j", [window(0, 10, 100)], client(answer))
    assert (heard.energy_kwh, heard.disagreement_percent) == (None, None)
    assert heard.reason is not None
    assert message in heard.reason


@pytest.mark.parametrize("url", ["prometheus:9090", "", "http://[::1", "http://x:notaport"])
def test_an_address_that_is_none_is_unreachable(url: str) -> None:
    with pytest.raises(UnreachableError, match="does not answer"):
        PrometheusClient(url, deadline_s=0).counter(METRIC, "GPU-a", ns(0), ns(1))


def test_a_server_that_did_not_answer_is_not_asked_again() -> None:
    waits = Waits()
    with client(httpx.ConnectTimeout("timed out"), waits) as prometheus:
        reasons = {hear("j", [window(0, 10, 100)], prometheus).reason for _ in range(5)}
    assert len(reasons) == 1
    assert waits.waited == [0.1, 0.2, 0.4, 0.8, 1.6, 2.0, 2.0, 2.0]
    assert waits.now_s <= DEADLINE_S


def test_a_server_that_fails_half_of_the_time_is_asked_until_it_answers() -> None:
    server, waits = FakePrometheus(), Waits()
    server.ramp("GPU-a", start_s=T0_S - 5, end_s=T0_S + 15, watts=100)
    prometheus = client(server, waits)
    for _ in range(10):
        server.sick = 1
        assert hear("j", [window(0, 10, 1000)], prometheus).disagreement_percent == pytest.approx(0.0, abs=1e-9)
    assert waits.waited == [0.1] * 10


def test_a_long_span_is_asked_for_in_ranges_that_leave_nothing_out() -> None:
    server = FakePrometheus()
    server.ramp("GPU-a", start_s=T0_S, end_s=T0_S + 90_000, watts=10, every_s=15)
    samples = client(server).counter(METRIC, "GPU-a", ns(0), ns(90_000))
    assert len(server.asked) == 5
    assert len(samples) == 6001


def test_a_server_that_reads_few_samples_at_once_is_asked_for_less() -> None:
    server = FakePrometheus(max_samples=100)
    server.ramp("GPU-a", start_s=T0_S - 60, end_s=T0_S + 600, watts=10)
    assert len(client(server).counter(METRIC, "GPU-a", ns(0), ns(540))) == 660
    assert len(server.asked) == 15


def test_a_server_that_reads_hardly_any_samples_is_a_reason() -> None:
    server = FakePrometheus(max_samples=10)
    server.ramp("GPU-a", start_s=T0_S - 60, end_s=T0_S + 600, watts=10)
    reason = hear("j", [window(0, 540, 1)], client(server)).reason
    assert reason is not None
    assert "refused a query: query processing would load too many samples into memory" in reason


def test_a_query_that_was_refused_does_not_silence_the_server() -> None:
    server = FakePrometheus(metric="other")
    server.ramp("GPU-a", start_s=T0_S, end_s=T0_S + 10, watts=10)
    prometheus = client(server)
    with pytest.raises(UnreachableError, match="parse error"):
        prometheus.counter("not a name", "GPU-a", ns(0), ns(10))
    assert len(prometheus.counter("other", "GPU-a", ns(0), ns(10))) == 11


def test_the_query_asks_for_raw_samples_with_a_margin_on_both_sides() -> None:
    server = FakePrometheus()
    client(server).counter(METRIC, "GPU-a", ns(0), ns(10.5))
    margin_s = MARGIN_NS // NS_PER_S
    assert server.asked == [
        {
            "query": f'{METRIC}{{device="GPU-a"}}[{10_500 + 2 * margin_s * 1000}ms]',
            "time": f"{T0_S + 10.5 + margin_s:.3f}",
        }
    ]


def test_a_path_before_the_api_is_kept() -> None:
    asked: list[str] = []

    def handle(request: httpx.Request) -> httpx.Response:
        asked.append(str(request.url))
        return httpx.Response(200, json={"status": "success", "data": {"resultType": "matrix", "result": []}})

    prometheus = PrometheusClient("http://grid.example/prometheus/", transport=httpx.MockTransport(handle))
    assert prometheus.counter(METRIC, "GPU-a", ns(0), ns(1)) == []
    assert asked == ["http://grid.example/prometheus/api/v1/query"]


@pytest.mark.parametrize("device", ['a"} or up{device="b', "back\\slash", "new\nline"])
def test_a_devices_name_cannot_break_out_of_the_query(device: str) -> None:
    server = FakePrometheus()
    server.ramp(device, start_s=T0_S, end_s=T0_S + 1, watts=10)
    assert client(server).counter(METRIC, device, ns(0), ns(1)) == [(ns(0), 1000.0), (ns(1), 1010.0)]


def test_series_of_one_device_are_put_together_and_what_is_no_number_is_left_out() -> None:
    server = FakePrometheus()
    server.add("GPU-a", (T0_S, 10.0), (T0_S + 1, "NaN"), (T0_S + 2, 12.0), instance="old:1")
    server.add("GPU-a", (T0_S + 3, 13.5), (T0_S + 2, 12.0), (T0_S + 4, "+Inf"), instance="new:2")
    assert client(server).counter(METRIC, "GPU-a", ns(0), ns(4)) == [(ns(0), 10.0), (ns(2), 12.0), (ns(3), 13.5)]


def test_sample_times_are_exact_to_the_millisecond() -> None:
    server = FakePrometheus()
    server.add("GPU-a", (T0_S + 0.123, 1.0))
    assert client(server).counter(METRIC, "GPU-a", ns(0), ns(1)) == [(T0_S * NS_PER_S + 123_000_000, 1.0)]


def test_without_a_server_or_a_window_there_is_no_witness() -> None:
    assert hear("j", [window(0, 10, 1)], None) == Witness(
        job_id="j", energy_kwh=None, disagreement_percent=None, reason=NO_SERVER
    )
    assert hear("j", [], client(FakePrometheus())).reason == NO_WINDOWS


def test_a_shared_devices_counter_is_split_as_the_log_has_it() -> None:
    server = FakePrometheus()
    server.ramp("GPU-a", start_s=T0_S - 5, end_s=T0_S + 15, watts=100)
    pieces = ((ns(0), ns(4), 0.5), (ns(4), ns(10), 0.25))
    shared = replace(window(0, 10, 350, shared=True), pieces=pieces)
    heard = hear("j", [shared], client(server))
    # 400 J x 0.5 and 600 J x 0.25.
    assert (heard.disagreement_percent, heard.quality) == (pytest.approx(0.0, abs=1e-9), {Quality.SHARED})


def test_a_counter_that_started_anew_is_bridged_and_flagged() -> None:
    server = FakePrometheus()
    server.add(
        "GPU-a", *((T0_S + i, 1000 + 100 * i) for i in range(-5, 5)), *((T0_S + i, 100 * i - 450) for i in range(5, 16))
    )
    heard = hear("j", [window(0, 10, 1000)], client(server))
    assert (heard.disagreement_percent, heard.quality) == (pytest.approx(0.0, abs=1e-9), {Quality.RESET})


def test_a_node_whose_clock_is_ahead_is_asked_about_at_the_servers_time() -> None:
    server = FakePrometheus()
    server.add("GPU-a", (T0_S - 5, 0), (T0_S, 0), (T0_S + 10, 1000), (T0_S + 20, 1000))
    ahead = hear("j", [window(3, 13, 1000)], client(server), offset_ns=lambda device, time_ns: 3 * NS_PER_S)
    assert ahead.disagreement_percent == pytest.approx(0.0, abs=1e-9)
    assert hear("j", [window(3, 13, 1000)], client(server)).disagreement_percent == pytest.approx(-30.0, rel=1e-9)


def test_a_shared_devices_counter_is_not_compared_with_a_part_nobody_knows() -> None:
    server = FakePrometheus()
    server.ramp("GPU-a", start_s=T0_S - 5, end_s=T0_S + 15, watts=100)
    heard = hear("j", [window(0, 10, 500, shared=True)], client(server))
    assert (heard.energy_kwh, heard.reason) == (
        None,
        "device GPU-a was shared; its counter shows what all its holders drew",
    )
    assert server.asked == []


def test_a_device_that_was_never_scraped_is_named() -> None:
    assert hear("j", [window(0, 10, 1)], client(FakePrometheus())).reason == (
        "Prometheus has no samples of device GPU-a in that time"
    )


def test_a_job_that_just_ended_is_to_be_asked_about_again() -> None:
    server = FakePrometheus()
    server.ramp("GPU-a", start_s=T0_S - 5, end_s=T0_S + 8, watts=100)
    reason = hear("j", [window(0, 10, 1)], client(server)).reason
    assert reason is not None
    assert "do not reach both ends of attempt 1; for one that just ended, ask again after the next scrape" in reason


def test_one_unknown_device_makes_the_total_unknown() -> None:
    server = FakePrometheus()
    server.ramp("GPU-a", start_s=T0_S - 5, end_s=T0_S + 15, watts=100)
    heard = hear("j", [window(0, 10, 1000), window(0, 10, 1000, device="GPU-b")], client(server))
    assert (heard.energy_kwh, heard.disagreement_percent) == (None, None)


def test_nothing_is_a_percentage_of_nothing() -> None:
    server = FakePrometheus()
    server.ramp("GPU-a", start_s=T0_S - 5, end_s=T0_S + 15, watts=360)
    heard = hear("j", [window(0, 10, 0)], client(server))
    assert (heard.energy_kwh, heard.disagreement_percent) == (0.001, None)
    assert heard.reason == "the energy log counts 0 J, and nothing can be a percentage of that"


def test_the_witness_adds_all_windows_and_says_how_far_it_disagrees_with_its_sign() -> None:
    server = FakePrometheus()
    server.ramp("GPU-a", start_s=T0_S - 5, end_s=T0_S + 40, watts=100)
    server.ramp("GPU-b", start_s=T0_S - 5, end_s=T0_S + 40, watts=260)
    windows = [window(0, 10, 1500), window(0.5, 10.5, 2500, device="GPU-b"), window(20, 30, 500)]
    heard = hear("j", windows, client(server))
    # 1,000 + 2,600 + 1,000 J against 1,500 + 2,500 + 500 J.
    assert heard.energy_kwh == pytest.approx(4600 / 3.6e6, rel=1e-12)
    assert heard.disagreement_percent == pytest.approx(100 * 100 / 4500, rel=1e-9)
    assert heard.reason is None


def test_the_body_is_prometheus_own() -> None:
    """The fake's answer, field by field, as the HTTP API's documentation shows it."""
    server = FakePrometheus()
    server.add("GPU-a", (T0_S, 1.5))
    query = {"query": f'{METRIC}{{device="GPU-a"}}[1000ms]', "time": str(T0_S)}
    with httpx.Client(transport=server.transport()) as http:
        body = json.loads(http.post(f"{URL}/api/v1/query", data=query).text)
    assert body == {
        "status": "success",
        "data": {
            "resultType": "matrix",
            "result": [
                {
                    "metric": {"__name__": METRIC, "device": "GPU-a", "instance": "node:9100"},
                    "values": [[T0_S, "1.5"]],
                }
            ],
        },
    }
