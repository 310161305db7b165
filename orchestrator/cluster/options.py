"""How a controller is started, and the agents it starts: values that travel as a command line."""

from __future__ import annotations

import argparse
from dataclasses import dataclass

from workers.telemetry.access import add_flags
from workers.telemetry.agent_access import UNPROTECTED, AgentAccess

LOOPBACK = "127.0.0.1"
PROGRAM = "workers.attempt"


@dataclass(frozen=True, kw_only=True)
class ControllerOptions:
    """How a controller is started.

    Attributes:
        agent_listen: address on which agents that it starts serve their metrics; ``agent_access``: who may read them.
        targets_listen: address on which Prometheus is told the agents; ``targets_port``: its port, 0 takes any.
        program: the module that an attempt's processes run.
    """

    agent_listen: str = LOOPBACK
    agent_access: AgentAccess = UNPROTECTED
    targets_listen: str = LOOPBACK
    targets_port: int = 0
    program: str = PROGRAM

    def flags(self) -> list[str]:
        """The command line that ``options_of`` reads."""
        return [
            *("--agent-listen", self.agent_listen),
            *self.agent_access.flags(),
            *("--targets-listen", self.targets_listen),
            *("--targets-port", str(self.targets_port)),
            *("--program", self.program),
        ]


def add_options(parser: argparse.ArgumentParser) -> None:
    """The flags of ``ControllerOptions``."""
    parser.add_argument("--agent-listen", default=LOOPBACK, help="address on which agents serve their metrics")
    add_flags(parser)
    parser.add_argument("--targets-listen", default=LOOPBACK, help="address on which Prometheus is told the agents")
    parser.add_argument("--targets-port", type=int, default=0, help="its port; 0 takes any (default 0)")
    # For whoever measures what starting a job costs, whatever it does.
    parser.add_argument("--program", default=PROGRAM, help=argparse.SUPPRESS)


def options_of(found: argparse.Namespace) -> ControllerOptions:
    """What the flags say."""
    access = AgentAccess(
        tls_cert=found.tls_cert,
        tls_key=found.tls_key,
        auth_user=found.auth_user,
        auth_password_file=found.auth_password_file,
    )
    return ControllerOptions(
        agent_listen=found.agent_listen,
        agent_access=access,
        targets_listen=found.targets_listen,
        targets_port=found.targets_port,
        program=found.program,
    )
