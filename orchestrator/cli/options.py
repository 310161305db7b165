"""Options several verbs share, each with its environment variable, and how they become a target."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from orchestrator.accounting.server_access import OPEN, ServerAccess, server_access
from orchestrator.cli.terminal import print_text
from orchestrator.client import LOOPBACK, PROMETHEUS_VARIABLE, Target, prometheus_url
from orchestrator.cluster.local import local_nodes
from orchestrator.plan import Plan
from workers.home import ENVIRONMENT_VARIABLE, Home
from workers.telemetry.agent_access import UNPROTECTED, AgentAccess

HomeOption = Annotated[
    str | None,
    typer.Option("--home", envvar=ENVIRONMENT_VARIABLE, help="Ledger folder.", show_default="~/.wattledger"),
]
AddressOption = Annotated[
    str | None,
    typer.Option(
        "--address", envvar="RAY_ADDRESS", help="host:port of a Ray head; without it, the one running on this machine."
    ),
]
LocalOption = Annotated[bool, typer.Option("--local", help="Use a Ray cluster of this machine's own.")]
SimulateOption = Annotated[
    list[str] | None,
    typer.Option("--simulate", help="With --local: accelerator type of a simulated node; repeat for more."),
]
PrometheusOption = Annotated[
    str | None,
    typer.Option("--prometheus", envvar=PROMETHEUS_VARIABLE, help="URL of a server that scrapes the agents."),
]
PrometheusConfigOption = Annotated[
    Path | None,
    typer.Option(
        "--prometheus-config",
        envvar="WATTLEDGER_PROMETHEUS_CONFIG",
        metavar="FILE",
        help="How that server is reached: Prometheus' HTTP client configuration (basic_auth, authorization, "
        "tls_config), secrets in files.",
    ),
]
AgentListenOption = Annotated[
    str,
    typer.Option(
        "--agent-listen",
        envvar="WATTLEDGER_AGENT_LISTEN",
        metavar="ADDRESS",
        help="Address on which agents that are started serve metrics; 0.0.0.0 lets Prometheus on other hosts scrape.",
    ),
]
AgentAccessOption = Annotated[
    Path | None,
    typer.Option(
        "--agent-access",
        envvar="WATTLEDGER_AGENT_ACCESS",
        metavar="FILE",
        help="TLS and password of agents that are started: TOML with tls_cert, tls_key, tls_ca, auth_user, "
        "auth_password_file, which are paths on every node.",
    ),
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON instead of tables.")]
OutOption = Annotated[Path | None, typer.Option("--out", help="Folder for report.html, .json, .parquet, reasons.json.")]
RunArgument = Annotated[str | None, typer.Argument(help="Run id or manifest name; without it, the latest run.")]
JobArgument = Annotated[
    str, typer.Argument(help="Job id, the beginning of one, or the name of a run of one job.", show_default=False)
]
ManifestArgument = Annotated[Path, typer.Argument(help="A manifest, YAML.", show_default=False)]


def home_of(folder: str | None) -> Home:
    """The ledger.

    Raises:
        InputError: a URI, which would otherwise be taken for a folder.
    """
    return Home.default() if folder is None else Home.default({ENVIRONMENT_VARIABLE: folder})


def target_of(
    *,
    address: str | None,
    local: bool,
    simulate: list[str] | None,
    prometheus: str | None = None,
    prometheus_config: Path | None = None,
    agent_listen: str = LOOPBACK,
    agent_access: Path | None = None,
) -> Target:
    """Where a run goes."""
    nodes = local_nodes(tuple(simulate or ())) if local or simulate else None
    return Target(
        address=address or "auto",
        local=nodes,
        prometheus_url=prometheus_url(prometheus),
        prometheus_access=access_of(prometheus_config),
        agent_listen=agent_listen,
        agent_access=agent_access_of(agent_access),
    )


def access_of(config: Path | None) -> ServerAccess:
    """How the Prometheus server is reached.

    Raises:
        InputError: the configuration cannot be used.
    """
    return OPEN if config is None else server_access(config)


def agent_access_of(file: Path | None) -> AgentAccess:
    """How agents are to be protected; without a file not at all.

    Raises:
        InputError: the file cannot be used.
    """
    return UNPROTECTED if file is None else AgentAccess.read(file)


class Silent:
    """An observer for a verb that only looks."""

    def say(self, text: str) -> None:
        """Nothing to tell."""

    def planned(self, plan: Plan) -> None:
        """Shown by the verb itself."""

    def progressed(self, *_: object) -> None:
        """Nothing runs."""


def print_json(value: object) -> None:
    """JSON on standard output; nothing else goes there."""
    print_text(json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False))
