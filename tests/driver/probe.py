"""A process with the real ``pynvml`` loaded over a simulated driver: ``python -m tests.driver.probe``.

One JSON object per line in, one out. ``Probe`` is the test's end: it opens an ``NvmlMeter`` there, whose clock is the
driver's, and asks it, or any function of ``pynvml``; errors come back as ``(class, sentence)``.
"""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import asdict, is_dataclass
from types import TracebackType
from typing import Any, Self

from tests.driver.driver import ROOT, Driver


class ProbeError(Exception):
    """What the probe raised: the class's name and the message."""


class Probe:
    """The test's end; a context manager. ``environment`` is added to the driver's."""

    def __init__(self, driver: Driver, environment: Mapping[str, str] | None = None) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.driver.probe"],
            cwd=ROOT,
            env={**driver.environment, **(environment or {})},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )

    def ask(self, do: str, *arguments: object) -> Any:
        """Do something there.

        Raises:
            ProbeError: it failed there.
        """
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps([do, *arguments]).encode() + b"\n")
        self._process.stdin.flush()
        reply = json.loads(self._process.stdout.readline())
        if "error" in reply:
            raise ProbeError(": ".join(reply["error"]))
        return reply["result"]

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._process.communicate(timeout=20)


class _Worker:
    """The probe's end."""

    def __init__(self) -> None:
        self._control: Any = None
        self._meter: Any = None
        self._node: Any = None

    def clock_ns(self) -> int:
        """The driver's clock; the last one seen when the driver is dead."""
        if self._control is None:
            connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
            connection.connect(os.environ["FAKE_NVML_SOCKET"])
            self._control = connection.makefile("rwb", buffering=0)
        self._control.write(b'{"op": "now"}\n')
        return int(self._control.readline())

    def do_open(self, visible: str | None = None) -> object:
        from workers.telemetry.nvml import NvmlMeter

        if self._meter is not None:
            self._meter.close()
        environ = {} if visible is None else {"CUDA_VISIBLE_DEVICES": visible}
        self._meter = NvmlMeter(clock_ns=self.clock_ns, environ=environ)
        return [{**asdict(device), "quality": sorted(device.quality)} for device in self._meter.devices()]

    def do_read(self, device: str) -> object:
        return asdict(self._meter.read(device))

    def do_condition(self, device: str) -> object:
        return asdict(self._meter.condition(device))

    def do_limits(self, device: str) -> object:
        return asdict(self._meter.limit_range(device))

    def do_use(self, device: str) -> object:
        return self._meter.process_use(device)

    def do_node(self) -> None:
        """Keep leases on the open meter."""
        from workers.telemetry.node import NodeMeter

        self._node = NodeMeter(self._meter, node="probe", clock_ns=self.clock_ns)

    def do_lease(self, job_id: str, device: str, pid: int) -> str:
        from workers.telemetry.leases import LeaseRequest

        request = LeaseRequest(job_id=job_id, attempt=1, devices=(device,), pid=pid, cpus=1.0)
        return str(self._node.open(request).lease_id)

    def do_end_lease(self, lease_id: str) -> None:
        self._node.close(lease_id)

    def do_tick(self) -> None:
        self._node.tick()

    def do_entries(self) -> object:
        return [{**asdict(entry), "quality": sorted(entry.quality)} for entry in self._node.take_entries()]

    def do_set_limit(self, device: str, limit_mw: int) -> None:
        self._meter.set_limit(device, limit_mw)

    def do_call(self, function: str, *arguments: object) -> object:
        """A call of the meter's port; a lease is its fields."""
        from workers.contract import Lease

        if function == "count":
            return len(self._meter.devices())
        given = [Lease(**each) if isinstance(each, dict) else each for each in arguments]
        said = getattr(self._meter, function)(*given)
        return asdict(said) if is_dataclass(said) and not isinstance(said, type) else said

    def do_refresh(self, device: str) -> object:
        """What the doctor measures, on the driver's clock, which passes a millisecond at every look."""
        from orchestrator.doctor.refresh import measure_refresh

        def pause(_: float) -> None:
            self._control.write(b'{"op": "advance", "ns": 1000000}\n')
            self._control.readline()

        measured = measure_refresh(self._meter, device, clock_ns=self.clock_ns, pause_s=pause)
        return None if measured is None else asdict(measured)

    def do_nvml(self, function: str, *arguments: object) -> object:
        """A function of ``pynvml`` as it is; ``["board", index]`` stands for a handle."""
        import pynvml

        def given(argument: Any) -> Any:
            is_handle = isinstance(argument, list) and argument[:1] == ["board"]
            return pynvml.nvmlDeviceGetHandleByIndex(argument[1]) if is_handle else argument

        return _plain(getattr(pynvml, function)(*map(given, arguments)))

    def do_fork(self, function: str) -> object:
        """Call ``function`` of ``pynvml`` on the first board in a forked child; gives what it said there."""
        reader, writer = os.pipe()
        if os.fork() == 0:
            os.write(writer, json.dumps(self.do_nvml(function, ["board", 0])).encode())
            os._exit(0)
        os.close(writer)
        with os.fdopen(reader) as said:
            result = json.loads(said.read())
        os.wait()
        return result


def _plain(value: Any) -> object:
    """NVML's structures as JSON."""
    if hasattr(value, "nvmlReturn"):
        return [value.nvmlReturn, value.value.ullVal if value.valueType == 3 else value.value.uiVal]
    if hasattr(value, "_fields_"):
        return {name: getattr(value, name) for name, _ in value._fields_}
    if isinstance(value, list | tuple) or hasattr(value, "_length_"):
        return [_plain(item) for item in value]
    return value if isinstance(value, int | str | None) else vars(value)


def main() -> None:
    worker = _Worker()
    for line in sys.stdin:
        do, *arguments = json.loads(line)
        try:
            reply = {"result": getattr(worker, f"do_{do}")(*arguments)}
        except Exception as error:  # noqa: BLE001 - it is told to the test
            reply = {"error": [type(error).__name__.partition("_")[0], str(error)]}
        print(json.dumps(reply), flush=True)


if __name__ == "__main__":
    main()
