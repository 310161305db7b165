"""The exporter says what the snapshot knows, nothing else, in names and labels of the catalogue."""

from __future__ import annotations

import dataclasses
import subprocess
import urllib.error
import urllib.request

import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client.parser import text_string_to_metric_families

from tests.prometheus_server import DIRECT, read_url
from workers.contract import Device, Lease, Method, Phase
from workers.errors import InputError
from workers.telemetry import catalogue
from workers.telemetry.catalogue import CATALOGUE
from workers.telemetry.exporter import AgentCollector, render, serve
from workers.telemetry.snapshot import DeviceStatus, LeaseStatus, NodeSnapshot

FIGURES = (
    catalogue.DEVICE_ENERGY.name,
    catalogue.DEVICE_POWER.name,
    catalogue.DEVICE_POWER_LIMIT.name,
    catalogue.DEVICE_UTILIZATION.name,
)
CONTRACT = {
    "wattledger_device_energy_joules_total",
    "wattledger_device_power_watts",
    "wattledger_device_power_limit_watts",
    "wattledger_device_utilization_ratio",
    "wattledger_device_up",
    "wattledger_lease_info",
    "wattledger_job_energy_joules_total",
    "wattledger_agent_read_errors_total",
    "wattledger_agent_read_seconds",
    "wattledger_agent_write_errors_total",
    "wattledger_jobs",
    "wattledger_queue_wait_seconds",
    "wattledger_budget_used_ratio",
}


def device_status(uuid: str = "GPU-a", **changes: object) -> DeviceStatus:
    method = changes.pop("method", Method.COUNTER)
    status = DeviceStatus(
        device=Device(uuid=uuid, index=0, model="H100", method=method),
        up=True,
        energy_mj=1_234_567,
        power_mw=100_500,
        limit_mw=700_000,
        utilization=0.25,
        read_errors=0,
    )
    return dataclasses.replace(status, **changes)


def lease_status(
    job_id: str, *devices: str, attempt: int = 1, phase: Phase | None = None, energy_mj: int = 0, is_open: bool = True
) -> LeaseStatus:
    lease = Lease(
        lease_id=f"{job_id}-{attempt}-{'-'.join(devices)}",
        job_id=job_id,
        attempt=attempt,
        devices=devices,
        pid=1,
        cpus=1.0,
        opened_ns=0,
        phase=phase,
    )
    return LeaseStatus(lease=lease, energy_mj=energy_mj, open=is_open)


def snapshot(*devices: DeviceStatus, leases: tuple[LeaseStatus, ...] = ()) -> NodeSnapshot:
    return NodeSnapshot(node="node-1", devices=devices, leases=leases, read_seconds=0.002)


EVERYTHING = snapshot(
    device_status("GPU-a", method=Method.SIMULATED),
    device_status("GPU-b", up=False, read_errors=2),
    leases=(lease_status("job-1", "GPU-a", phase=Phase.TRAIN, energy_mj=5), lease_status("job-2", "GPU-b")),
)


def samples(text: str) -> dict[str, list[tuple[dict[str, str], float]]]:
    """Metric name to its (labels, value) pairs."""
    found: dict[str, list[tuple[dict[str, str], float]]] = {}
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            found.setdefault(sample.name, []).append((sample.labels, sample.value))
    return found


def test_a_device_that_is_down_exports_only_that_and_its_errors() -> None:
    stale = device_status("GPU-b", up=False, read_errors=2)
    found = samples(render(snapshot(stale)))
    assert not set(found) & set(FIGURES)
    assert [value for _, value in found[catalogue.DEVICE_UP.name]] == [0.0]
    assert found[catalogue.READ_ERRORS.name] == [({"node": "node-1", "device": "GPU-b"}, 2.0)]


def test_a_figure_the_device_does_not_tell_is_absent_and_not_zero() -> None:
    silent = device_status(energy_mj=None, power_mw=None, limit_mw=None, utilization=None)
    found = samples(render(snapshot(silent)))
    assert not set(found) & set(FIGURES)
    assert [value for _, value in found[catalogue.DEVICE_UP.name]] == [1.0]


def test_zero_is_a_figure() -> None:
    found = samples(render(snapshot(device_status(energy_mj=0, power_mw=0, limit_mw=0, utilization=0.0))))
    assert [found[name][0][1] for name in FIGURES] == [0.0, 0.0, 0.0, 0.0]


def test_a_node_without_devices_and_leases_still_reports_its_read() -> None:
    assert samples(render(snapshot())) == {
        catalogue.READ_SECONDS.name: [({"node": "node-1"}, 0.002)],
        catalogue.WRITE_ERRORS.name: [({"node": "node-1"}, 0.0)],
    }


def test_figures_are_in_base_units() -> None:
    found = samples(render(snapshot(device_status())))
    assert [found[name][0][1] for name in FIGURES] == [1234.567, 100.5, 700.0, 0.25]


@given(energy_mj=st.integers(min_value=0, max_value=10**15))
def test_every_millijoule_survives_the_text_format(energy_mj: int) -> None:
    found = samples(render(snapshot(device_status(energy_mj=energy_mj))))
    ((_, joules),) = found[catalogue.DEVICE_ENERGY.name]
    assert round(joules * 1000) == energy_mj


def test_a_device_is_named_by_uuid_model_kind_and_method() -> None:
    found = samples(render(snapshot(device_status(method=Method.SIMULATED))))
    labels, _ = found[catalogue.DEVICE_POWER.name][0]
    assert labels == {"node": "node-1", "device": "GPU-a", "model": "H100", "kind": "gpu", "method": "simulated"}


def test_each_open_lease_is_shown_on_each_of_its_devices_with_its_phase() -> None:
    leases = (lease_status("job-1", "GPU-a", "GPU-b", phase=Phase.TRAIN), lease_status("job-2", "GPU-a", attempt=2))
    found = samples(render(snapshot(device_status("GPU-a"), device_status("GPU-b"), leases=leases)))
    common = {"node": "node-1"}
    assert found[catalogue.LEASE_INFO.name] == [
        ({**common, "device": "GPU-a", "job_id": "job-1", "attempt": "1", "phase": "train"}, 1.0),
        ({**common, "device": "GPU-a", "job_id": "job-2", "attempt": "2", "phase": ""}, 1.0),
        ({**common, "device": "GPU-b", "job_id": "job-1", "attempt": "1", "phase": "train"}, 1.0),
    ]


def test_a_closed_lease_keeps_its_energy_and_holds_nothing() -> None:
    closed = lease_status("job-1", "GPU-a", energy_mj=1_500, is_open=False)
    found = samples(render(snapshot(device_status(), leases=(closed,))))
    assert catalogue.LEASE_INFO.name not in found
    assert found[catalogue.JOB_ENERGY.name] == [
        ({"node": "node-1", "job_id": "job-1", "attempt": "1", "method": "counter"}, 1.5)
    ]


def test_leases_of_one_attempt_are_one_series_with_the_weakest_method() -> None:
    devices = (device_status("GPU-a"), device_status("CPU-0", method=Method.MODELLED))
    leases = (lease_status("job-1", "GPU-a", energy_mj=1_000), lease_status("job-1", "CPU-0", energy_mj=234))
    found = samples(render(snapshot(*devices, leases=leases)))
    assert found[catalogue.JOB_ENERGY.name] == [
        ({"node": "node-1", "job_id": "job-1", "attempt": "1", "method": "modelled"}, 1.234)
    ]


def test_a_jobs_energy_has_its_part_of_the_host_and_is_as_sure_as_that() -> None:
    cpu = device_status("cpu-package-0", method=Method.MODELLED, energy_mj=None, power_mw=None)
    cpu = dataclasses.replace(cpu, device=dataclasses.replace(cpu.device, kind="cpu"))
    found = samples(render(snapshot(device_status("GPU-a"), cpu, leases=(lease_status("job-1", "GPU-a"),))))
    ((labels, _),) = found[catalogue.JOB_ENERGY.name]
    assert labels["method"] == "modelled"
    assert [labels["device"] for labels, _ in found[catalogue.DEVICE_ENERGY.name]] == ["GPU-a"]


def test_no_series_is_exported_twice_when_an_attempt_holds_a_device_by_two_leases() -> None:
    twice = (lease_status("job-1", "GPU-a"), lease_status("job-1", "GPU-a"))
    assert len(samples(render(snapshot(device_status(), leases=twice)))[catalogue.LEASE_INFO.name]) == 1


def test_the_catalogue_holds_exactly_the_names_of_the_contract() -> None:
    assert set(CATALOGUE) == CONTRACT


def test_everything_exported_is_as_the_catalogue_says() -> None:
    found = samples(render(EVERYTHING))
    promised = {name for name, metric in CATALOGUE.items() if metric.exported_by == "agent" and metric.exported}
    assert set(found) == promised
    for name, series in found.items():
        assert {tuple(sorted(labels)) for labels, _ in series} == {tuple(sorted(CATALOGUE[name].labels))}


def test_names_carry_their_unit_and_no_label_is_an_index() -> None:
    for name, metric in CATALOGUE.items():
        assert name.removesuffix("_total").endswith(metric.unit)
        assert name.endswith("_total") == (metric.kind == "counter")
        assert name.endswith("_info") == (metric.kind == "info")
        assert not {"index", "gpu", "minor"} & set(metric.labels)


@pytest.mark.prometheus
def test_promtool_has_nothing_to_say_about_the_text() -> None:
    command = ["promtool", "check", "metrics"]
    said = subprocess.run(command, input=render(EVERYTHING), capture_output=True, text=True, timeout=30, check=False)
    assert (said.returncode, said.stdout, said.stderr) == (0, "", "")


def test_every_scrape_takes_one_fresh_snapshot() -> None:
    energies = iter([1_000, 2_000])

    def now() -> NodeSnapshot:
        return snapshot(device_status(energy_mj=next(energies)))

    with serve(AgentCollector(now)) as exporter:
        scraped = [samples(read_url(exporter.url))[catalogue.DEVICE_ENERGY.name][0][1] for _ in range(2)]
    assert scraped == [1.0, 2.0]


def test_the_openmetrics_format_is_served_to_those_who_ask() -> None:
    with serve(AgentCollector(lambda: EVERYTHING)) as exporter:
        wanted = {"Accept": "application/openmetrics-text; version=1.0.0"}
        with DIRECT.open(urllib.request.Request(exporter.url, headers=wanted), timeout=10) as response:
            text = response.read().decode()
    assert text.endswith("# EOF\n")
    assert "# TYPE wattledger_lease info\n" in text
    assert "# UNIT wattledger_device_energy_joules joules\n" in text


def test_an_exporter_listens_on_the_loopback_interface_unless_told_otherwise() -> None:
    with serve(AgentCollector(lambda: EVERYTHING)) as exporter:
        assert exporter.url == f"http://127.0.0.1:{exporter.port}/metrics"
        assert exporter.port > 0


def test_closing_frees_the_port_and_may_be_repeated() -> None:
    first = serve(AgentCollector(lambda: EVERYTHING))
    first.close()
    first.close()
    with pytest.raises(urllib.error.URLError):
        read_url(first.url)
    serve(AgentCollector(lambda: EVERYTHING), port=first.port).close()


def test_a_port_in_use_is_an_input_error_with_the_way_out() -> None:
    with serve(AgentCollector(lambda: EVERYTHING)) as exporter, pytest.raises(InputError) as refused:
        serve(AgentCollector(lambda: EVERYTHING), port=exporter.port)
    assert str(refused.value) == (
        f"metrics cannot be served on 127.0.0.1:{exporter.port}: [Errno 98] Address already in use. "
        "Choose another port, or 0 for any that is free, and an address of this machine."
    )


@pytest.mark.parametrize(
    ("listen", "port"),
    [("192.0.2.1", 0), ("127.0.0.1", 65536), ("127.0.0.1", -1)],
    ids=["address of another machine", "port too high", "port negative"],
)
def test_an_address_that_cannot_be_bound_is_an_input_error(listen: str, port: int) -> None:
    with pytest.raises(InputError, match="metrics cannot be served on"):
        serve(AgentCollector(lambda: EVERYTHING), listen=listen, port=port)
