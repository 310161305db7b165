"""The driver process: ``python -m tests.driver.server '{"socket": …, "boards": […], "clock": "real"}'``.

One socket serves the library (binary, see ``wire.py``) and tests (one JSON object per line, see ``Control``). It prints
``ready`` once it listens, and ends with its standard input, so that it never outlives the test that started it.
"""

from __future__ import annotations

import json
import selectors
import socket
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from tests.driver.boards import BoardSpec
from tests.driver.kernel import Fault, Kernel, Session
from tests.driver.wire import REQUEST
from workers.telemetry.power_trace import Piece, Trace


class Control:
    """What a test may order. Times are ns since the epoch; without one, an order holds from now on."""

    def __init__(self, kernel: Kernel, advance: Callable[[int], None] | None) -> None:
        self._kernel, self._advance = kernel, advance

    def order(self, line: bytes) -> object:
        """One order; the reply is JSON."""
        arguments = json.loads(line)
        return getattr(self, f"do_{arguments.pop('op')}")(**arguments)

    def do_now(self) -> int:
        return self._kernel.clock_ns()

    def do_advance(self, ns: int) -> int:
        assert self._advance is not None, "only a manual clock can be advanced"
        self._advance(ns)
        return self._kernel.clock_ns()

    def do_uuids(self) -> list[str]:
        return list(self._kernel.uuids)

    def do_load(self, board: int, processes: dict[str, float], at_ns: int | None = None) -> int:
        at_ns = self._kernel.clock_ns() if at_ns is None else at_ns
        self._kernel.boards[board].load(at_ns, {int(pid): share for pid, share in processes.items()})
        return at_ns

    def do_draw(
        self, board: int, pieces: list[tuple[int, int, int]], repeats: bool = False, at_ns: int | None = None
    ) -> int:
        at_ns = self._kernel.clock_ns() if at_ns is None else at_ns
        parts = tuple(Piece(duration_ns=ns, start_mw=start, end_mw=end) for ns, start, end in pieces)
        self._kernel.boards[board].draw(at_ns, Trace(parts, repeats))
        return at_ns

    def do_reset(self, board: int, at_ns: int | None = None) -> int:
        at_ns = self._kernel.clock_ns() if at_ns is None else at_ns
        self._kernel.boards[board].reset(at_ns)
        return at_ns

    def do_fault(self, since_ns: int | None = None, **what: Any) -> int:
        since_ns = self._kernel.clock_ns() if since_ns is None else since_ns
        self._kernel.faults.append(Fault(since_ns=since_ns, **what))
        return since_ns

    def do_clear(self, kind: str | None = None) -> int:
        """End faults, of one kind or all, now; one that only begins later never does."""
        now_ns = self._kernel.clock_ns()
        ended = []
        for fault in self._kernel.faults:
            if kind not in (None, fault.kind) or (fault.until_ns is not None and fault.until_ns <= now_ns):
                ended.append(fault)
            elif fault.since_ns <= now_ns:
                ended.append(Fault(**{**vars(fault), "until_ns": now_ns}))
        self._kernel.faults = ended
        return now_ns

    def do_truth(self, board: int, start_ns: int, end_ns: int) -> int:
        """True energy, pJ."""
        return self._kernel.boards[board].true_energy_pj(start_ns, end_ns)

    def do_counter(self, board: int, at_ns: int) -> int | None:
        return self._kernel.boards[board].counter_mj(at_ns)

    def do_limit(self, board: int) -> int:
        return self._kernel.boards[board].limit_mw

    def do_calls(self) -> int:
        return self._kernel.calls


@dataclass
class Connection:
    """One client, the library or a test."""

    socket: socket.socket
    session: Session = field(default_factory=Session)
    pending: bytes = b""

    def feed(self, data: bytes, kernel: Kernel, control: Control) -> bytes:
        """Take what came in; give what goes out."""
        self.pending += data
        out = b""
        while True:
            if self.pending.startswith(b"{"):
                line, newline, rest = self.pending.partition(b"\n")
                if not newline:
                    return out
                self.pending = rest
                out += json.dumps(control.order(line)).encode() + b"\n"
            elif len(self.pending) >= REQUEST.size:
                request, self.pending = self.pending[: REQUEST.size], self.pending[REQUEST.size :]
                out += kernel.answer(request, self.session)
            else:
                return out


def serve(listener: socket.socket, kernel: Kernel, control: Control) -> None:
    """Answer until standard input ends."""
    selector = selectors.DefaultSelector()
    selector.register(listener, selectors.EVENT_READ)
    selector.register(sys.stdin, selectors.EVENT_READ)
    while True:
        for key, _ in selector.select():
            if key.fileobj is sys.stdin:
                return
            if key.fileobj is listener:
                accepted, _ = listener.accept()
                selector.register(accepted, selectors.EVENT_READ, Connection(accepted))
                continue
            connection: Connection = key.data
            try:
                data = connection.socket.recv(65536)
                if data:
                    connection.socket.sendall(connection.feed(data, kernel, control))
            except OSError:
                data = b""
            if not data:
                selector.unregister(connection.socket)
                connection.socket.close()


def main() -> None:
    wanted = json.loads(sys.argv[1])
    specs = [BoardSpec(**{**spec, "slices": tuple(spec.get("slices", ()))}) for spec in wanted["boards"]]
    if wanted["clock"] == "manual":
        manual_ns = [1_700_000_000 * 10**9]
        kernel = Kernel(specs, lambda: manual_ns[0])
        control = Control(kernel, lambda ns: manual_ns.__setitem__(0, manual_ns[0] + ns))
    else:
        kernel = Kernel(specs, time.time_ns)
        control = Control(kernel, None)
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as listener:
        listener.bind(wanted["socket"])
        listener.listen(64)
        print("ready", flush=True)
        serve(listener, kernel, control)


if __name__ == "__main__":
    main()
