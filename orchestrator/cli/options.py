"""Options several verbs share, each with its environment variable, and how they become a target."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Annotated

import typer

from orchestrator.accounting.server_access import OPEN, ServerAccess, server_access
from orchestrator.cli.terminal import print_text
from orchestrator.client import PROMETHEUS_VARIABLE, ControllerOptions, Target, prometheus_url
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
NameArgument = Annotated[
    str | None,
    typer.Argument(help="Run, manifest, job, or the beginning of a job's id; without it, the latest run."),
]
JobArgument = Annotated[
    str, typer.Argument(help="Job id, the beginning of one, or the name of a run of one job.", show_default=False)
]
ManifestsArgument = Annotated[
    list[Path], typer.Argument(help="Manifests, YAML, that may need each other.", show_default=False)
]
ProfileOption = Annotated[
    str | None,
    typer.Option(
        "--profile",
        help="Run each manifest as this one of its profiles says, such as tiny; its name is put after the manifest's.",
        show_default="as written",
    ),
]
SubmissionOption = Annotated[
    str | None,
    typer.Option("--submission-id", help="The same manifests and id give the same job ids.", show_default="a new one"),
]
DEFAULT = ControllerOptions()


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
    controller: ControllerOptions = DEFAULT,
) -> Target:
    """Where a run goes."""
    return Target(
        address=address,
        local=local_nodes(tuple(simulate or ())) if local or simulate else None,
        prometheus_url=prometheus_url(prometheus),
        prometheus_access=access_of(prometheus_config),
        controller=controller,
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


class Notes:
    """An observer for a verb that shows its own result: what it is told goes to standard error."""

    def say(self, text: str) -> None:
        """One line."""
        sys.stderr.write(f"{text}\n")

    def planned(self, plan: Plan) -> None:
        """Shown by the verb itself."""

    def progressed(self, *_: object) -> None:
        """Nothing runs."""


def print_json(value: object) -> None:
    """JSON on standard output; nothing else goes there."""
    print_text(json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False))
