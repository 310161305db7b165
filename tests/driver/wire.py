"""The layout of a request and a reply between the library and the driver process, as in ``nvml.c``."""

from __future__ import annotations

import enum
import struct

MAGIC = 0x4C4D564E
"""``NVML``: tells the library's requests from a test's, which are lines of JSON."""
REQUEST = struct.Struct("<IIIIQQ96s")
"""Magic, operation, device, padding, two arguments, text."""
REPLY = struct.Struct("<iI4Q96s")
"""NVML's return code, a count, four values, text (or processes)."""
PROCESS = struct.Struct("<III")
"""Pid, SM share in percent, memory in MiB; eight fit a reply."""
MAX_PROCESSES = 8


class Op(enum.IntEnum):
    """The operations, numbered as in ``nvml.c``."""

    INIT = 1
    DRIVER_VERSION = 2
    COUNT = 3
    FIND_UUID = 4
    UUID = 5
    NAME = 6
    ENERGY = 7
    POWER_USAGE = 8
    FIELD = 9
    UTILIZATION = 10
    MEMORY = 11
    TEMPERATURE = 12
    CLOCK = 13
    GET_LIMIT = 14
    SET_LIMIT = 15
    LIMIT_RANGE = 16
    DEFAULT_LIMIT = 17
    ENFORCED_LIMIT = 18
    EVENT_REASONS = 19
    PROCESSES = 20
    MIG_MODE = 21
    ARCHITECTURE = 22
    CAPABILITY = 23
    PERSISTENCE = 24
    C2C_MODE = 25
    MIG_PARENT = 26
    CHECK = 27


class Code(enum.IntEnum):
    """NVML's return codes that this driver gives."""

    SUCCESS = 0
    UNINITIALIZED = 1
    INVALID_ARGUMENT = 2
    NOT_SUPPORTED = 3
    NO_PERMISSION = 4
    NOT_FOUND = 6
    DRIVER_NOT_LOADED = 9
    FUNCTION_NOT_FOUND = 13
    GPU_IS_LOST = 15
    UNKNOWN = 999
