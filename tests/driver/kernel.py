"""The driver's side of NVML: boards, their faults, and what it answers. Pure: the clock is given."""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from tests.driver.boards import BoardSpec
from tests.driver.wire import MAX_PROCESSES, PROCESS, REPLY, REQUEST, Code, Op
from workers.telemetry.board import Board
from workers.units import NS_PER_MS

DRIVER_VERSION = "580.95.05"
ENERGY_FIELD, AVERAGE_FIELD, INSTANT_FIELD = 83, 185, 186
SENSORS = frozenset({Op.ENERGY, Op.POWER_USAGE, Op.FIELD, Op.UTILIZATION})
SLICES_FROM = 256
"""Handles of MIG slices: this times (board + 1), and the slice's number."""
IDLE_REASON, POWER_CAP_REASON = 0x1, 0x4
MIG_CAPABILITIES = {(8, 0), (9, 0)}
"""GA100 and GH100 can be cut into slices."""
LOST_SAMPLE_NS = 50 * NS_PER_MS
"""Samples are lost by stretches of this length."""
SENTINEL = {Op.ENERGY: 2**64 - 1, Op.POWER_USAGE: 2**32 - 1, Op.FIELD: 2**32 - 1, Op.UTILIZATION: 2**32 - 1}

FaultKind = Literal["gone", "lost", "failing", "forbidden", "half", "sentinel", "denied"]


@dataclass(frozen=True, kw_only=True)
class Fault:
    """Something that is wrong from ``since_ns`` until ``until_ns`` (``None``: for good).

    Attributes:
        kind: ``gone``: no driver, and whoever used it must initialise again; ``lost``: the board fell off the bus;
            ``failing``: its sensors answer with an error; ``forbidden``: not to this user; ``half``: half of the
            time they fail; ``sentinel``: they give ``value``, or NVML's "not available"; ``denied``: its limit may not
            be set.
        board: its index; ``None``: every board.
    """

    kind: FaultKind
    since_ns: int
    until_ns: int | None = None
    board: int | None = None
    value: int | None = None

    def holds(self, now_ns: int, board: int) -> bool:
        return (
            self.since_ns <= now_ns
            and (self.until_ns is None or now_ns < self.until_ns)
            and self.board in (None, board)
            and (self.kind != "half" or random.Random(now_ns // LOST_SAMPLE_NS).random() < 0.5)
        )


@dataclass
class Session:
    """One connection of the library; ``generation`` is the driver's when it was initialised."""

    generation: int | None = None


class Refusal(Exception):  # noqa: N818 - not an error of ours: NVML's
    """NVML's answer to a call it does not serve; ``count`` 1 says that only the field is not served."""

    def __init__(self, code: Code, count: int = 0) -> None:
        self.code, self.count = code, count


Values = tuple[int, ...] | str | Sequence[tuple[int, int, int]]


class Kernel:
    """All boards of one machine."""

    def __init__(self, specs: Sequence[BoardSpec], clock_ns: Callable[[], int]) -> None:
        self.clock_ns = clock_ns
        self.specs = tuple(specs)
        self.uuids = tuple(spec.uuid_at(index) for index, spec in enumerate(specs))
        now_ns = clock_ns()
        self.boards = [
            Board(spec.profile, now_ns=now_ns, counted_mj=spec.counted_mj, offset_ns=spec.offset_ms * NS_PER_MS)
            for spec in specs
        ]
        self.faults: list[Fault] = []
        self.calls = 0

    def answer(self, request: bytes, session: Session) -> bytes:
        """One request of the library to one reply."""
        self.calls += 1
        _, number, device, _, first, second, text = REQUEST.unpack(request)
        now_ns = self.clock_ns()
        try:
            values = self._serve(Op(number), device, first, second, text.rstrip(b"\0").decode(), session, now_ns)
        except Refusal as refusal:
            return REPLY.pack(refusal.code, refusal.count, 0, 0, 0, 0, b"")
        if isinstance(values, str):
            return REPLY.pack(0, 0, 0, 0, 0, 0, values.encode())
        if isinstance(values, list):
            packed = b"".join(PROCESS.pack(*process) for process in values)
            return REPLY.pack(0, len(values), now_ns // 1000, 0, 0, 0, packed)
        return REPLY.pack(0, 0, *values, *(0,) * (4 - len(values)), b"")

    def _serve(self, op: Op, device: int, first: int, second: int, text: str, session: Session, now_ns: int) -> Values:
        if any(fault.kind == "gone" and fault.holds(now_ns, -1) for fault in self.faults):
            raise Refusal(Code.DRIVER_NOT_LOADED)
        generation = sum(f.kind == "gone" and f.until_ns is not None and f.until_ns <= now_ns for f in self.faults)
        if op is Op.INIT:
            session.generation = generation
            return ()
        if session.generation != generation:
            raise Refusal(Code.UNINITIALIZED)
        if op is Op.DRIVER_VERSION:
            return DRIVER_VERSION
        if op is Op.COUNT:
            return (len(self.boards),)
        if op is Op.FIND_UUID:
            return (self._find(text),)
        if device >= SLICES_FROM:
            return self._serve_slice(op, device)
        if device >= len(self.boards):
            raise Refusal(Code.INVALID_ARGUMENT)
        return self._serve_board(op, device, first, second, now_ns)

    def _find(self, uuid: str) -> int:
        if uuid in self.uuids:
            return self.uuids.index(uuid)
        for board, spec in enumerate(self.specs):
            if uuid in spec.slices:
                return SLICES_FROM * (board + 1) + spec.slices.index(uuid)
        raise Refusal(Code.NOT_FOUND)

    def _serve_slice(self, op: Op, device: int) -> Values:
        """A MIG slice has a name and a board, and no power or energy."""
        board, number = device // SLICES_FROM - 1, device % SLICES_FROM
        if board >= len(self.specs) or number >= len(self.specs[board].slices):
            raise Refusal(Code.INVALID_ARGUMENT)
        if op is Op.MIG_PARENT:
            return (board,)
        if op is Op.UUID:
            return self.specs[board].slices[number]
        raise Refusal(Code.NOT_SUPPORTED)

    def _serve_board(self, op: Op, index: int, first: int, second: int, now_ns: int) -> Values:
        kinds = {fault.kind: fault for fault in self.faults if fault.holds(now_ns, index)}
        if "lost" in kinds:
            raise Refusal(Code.GPU_IS_LOST)
        if op in SENSORS and ("failing" in kinds or "half" in kinds):
            raise Refusal(Code.UNKNOWN)
        if (op is Op.SET_LIMIT and "denied" in kinds) or (op in SENSORS and "forbidden" in kinds):
            raise Refusal(Code.NO_PERMISSION)
        values = self._facts(op, index) or self._sensors(op, index, first, second, now_ns)
        if op in SENSORS and "sentinel" in kinds:
            value = kinds["sentinel"].value
            assert isinstance(values, tuple)
            return (SENTINEL[op] if value is None else min(value, SENTINEL[op]), *values[1:])
        return values

    def _facts(self, op: Op, index: int) -> Values:
        """What does not change; empty for anything else."""
        spec, profile = self.specs[index], self.boards[index].profile
        facts: dict[Op, Values] = {
            Op.UUID: self.uuids[index],
            Op.NAME: spec.product.name,
            Op.LIMIT_RANGE: (profile.min_limit_w * 1000, profile.tdp_w * 1000),
            Op.DEFAULT_LIMIT: (profile.tdp_w * 1000,),
            Op.ARCHITECTURE: (spec.product.architecture,),
            Op.CAPABILITY: spec.product.capability,
            Op.PERSISTENCE: (1,),
        }
        return facts.get(op, ())

    def _sensors(self, op: Op, index: int, first: int, second: int, now_ns: int) -> Values:
        board = self.boards[index]
        if op is Op.FIELD:
            return self._field(board, first, second, now_ns)
        if op is Op.SET_LIMIT:
            return self._limit(board, first, now_ns)
        if op is Op.PROCESSES:
            return processes(board.processes)
        answers: dict[Op, Callable[[], Values]] = {
            Op.CHECK: tuple,
            Op.ENERGY: lambda: (self._counted(board, now_ns),),
            Op.POWER_USAGE: lambda: (board.usage_mw(now_ns),),
            Op.UTILIZATION: lambda: (round(100 * board.utilization(now_ns)), round(50 * board.utilization(now_ns))),
            Op.GET_LIMIT: lambda: (board.limit_mw,),
            Op.ENFORCED_LIMIT: lambda: (board.limit_mw,),
            **self._condition(index, now_ns),
        }
        if op not in answers:
            raise Refusal(Code.NOT_SUPPORTED)
        return answers[op]()

    def _condition(self, index: int, now_ns: int) -> dict[Op, Callable[[], Values]]:
        """What of a board's condition it offers; the figures are plausible, not physics."""
        board, spec = self.boards[index], self.specs[index]
        is_busy = board.utilization(now_ns) > 0
        full_mw = board.profile.tdp_w * 1000
        reason = POWER_CAP_REASON if board.limit_mw < full_mw else 0
        offered: dict[Op, Callable[[], Values]] = {
            Op.MEMORY: lambda: (spec.product.memory_gib << 30, (len(board.processes) + 1) << 30),
            Op.TEMPERATURE: lambda: (30 + round(45 * board.true_power_mw(now_ns) / full_mw),),
            Op.CLOCK: lambda: (
                round(spec.product.clock_mhz * (board.speed / board.profile.speed if is_busy else 0.25)),
            ),
            Op.EVENT_REASONS: lambda: (reason if is_busy else IDLE_REASON,),
        }
        if spec.product.capability in MIG_CAPABILITIES:
            is_cut = int(bool(spec.slices))
            offered[Op.MIG_MODE] = lambda: (is_cut, is_cut)
        if spec.model == "GH200":
            offered[Op.C2C_MODE] = lambda: (1,)
        return offered

    def _counted(self, board: Board, now_ns: int) -> int:
        counted_mj = board.counter_mj(now_ns)
        if counted_mj is None:
            raise Refusal(Code.NOT_SUPPORTED)
        return counted_mj

    def _field(self, board: Board, field: int, scope: int, now_ns: int) -> Values:
        """Value, NVML's value type (1: unsigned, 3: unsigned long long), time in µs. A field's refusal is its own."""
        is_module = self.specs[self.boards.index(board)].model == "GH200"
        if scope not in ((0, 1) if is_module else (0,)):
            raise Refusal(Code.NOT_SUPPORTED, count=1)
        time_us = now_ns // 1000
        if field == ENERGY_FIELD and board.profile.has_counter:
            return (self._counted(board, now_ns), 3, time_us)
        if field == INSTANT_FIELD and board.profile.has_instant:
            return (board.sampled_mw(now_ns), 1, time_us)
        if field == AVERAGE_FIELD and board.profile.has_instant:
            return (board.averaged_mw(now_ns), 1, time_us)
        raise Refusal(Code.NOT_SUPPORTED, count=1)

    def _limit(self, board: Board, limit_mw: int, now_ns: int) -> Values:
        if not board.profile.min_limit_w * 1000 <= limit_mw <= board.profile.tdp_w * 1000:
            raise Refusal(Code.INVALID_ARGUMENT)
        board.set_limit(now_ns, limit_mw)
        return ()


def processes(shares: Mapping[int, float]) -> list[tuple[int, int, int]]:
    """Pid, SM share in percent and memory in MiB of each process."""
    return [(pid, round(100 * share), 1024) for pid, share in list(shares.items())[:MAX_PROCESSES]]
