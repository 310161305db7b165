"""What a Prometheus server is told to scrape: configuration texts, no server."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from pathlib import Path

from workers.errors import InputError
from workers.telemetry.agent_access import UNPROTECTED, AgentAccess

JOB_NAME = "wattledger"
"""Prometheus' own ``job`` label on every series; a job of the ledger is ``job_id``."""


def scrape_config(targets: Sequence[str], interval: str = "5s") -> str:
    """What to put into the ``prometheus.yml`` of an existing server.

    Args:
        targets: ``host:port`` of each node's exporter.
        interval: Prometheus duration; a phase shorter than a few of them is seen poorly.

    Raises:
        InputError: not a duration.
    """
    lines = [
        "scrape_configs:",
        f"  - job_name: {JOB_NAME}",
        f"    scrape_interval: {duration(interval)}",
        f"    scrape_timeout: {duration(interval)}",
        "    static_configs:",
        f"      - targets: {json.dumps(list(targets))}",
    ]
    return "\n".join(lines) + "\n"


def file_config(targets_file: Path, interval: str) -> str:
    """A whole configuration that follows ``targets_file`` (see ``target_list``), in JSON, which is YAML too.

    Raises:
        InputError: not a duration.
    """
    discovery = {"files": [str(targets_file)], "refresh_interval": "1s"}
    return json.dumps(
        {
            "global": {"scrape_interval": duration(interval), "scrape_timeout": duration(interval)},
            "scrape_configs": [{"job_name": JOB_NAME, "file_sd_configs": [discovery]}],
        }
    )


def http_config(url: str, interval: str, *, refresh: str = "1s", access: AgentAccess = UNPROTECTED) -> str:
    """A whole configuration that follows the targets served at ``url`` (see ``discovery``), in JSON.

    Args:
        url: asked for the targets every ``refresh``; Prometheus takes up what is new within 5 s more.
        interval: time between scrapes, a Prometheus duration.
        refresh: a Prometheus duration.
        access: how the agents are protected; Prometheus reads the files itself, again when they change.

    Raises:
        InputError: not a duration.
    """
    discovery = {"url": url, "refresh_interval": duration(refresh)}
    job = {"job_name": JOB_NAME, "honor_labels": True, "http_sd_configs": [discovery], **_credentials(access)}
    return json.dumps(
        {
            "global": {"scrape_interval": duration(interval), "scrape_timeout": duration(interval)},
            "scrape_configs": [job],
        }
    )


def _credentials(access: AgentAccess) -> dict[str, object]:
    """What a scrape job shows and asks of protected agents; that they speak TLS is told with each target."""
    found: dict[str, object] = {}
    if access.tls_ca is not None:
        found["tls_config"] = {"ca_file": str(access.tls_ca)}
    if access.auth_user is not None:
        found["basic_auth"] = {"username": access.auth_user, "password_file": str(access.auth_password_file)}
    return found


def target_list(targets: Sequence[str]) -> str:
    """``host:port`` targets in the format of Prometheus' file-based discovery."""
    return json.dumps([{"targets": list(targets)}])


def duration(text: str) -> str:
    """``text`` if it is a Prometheus duration of one unit.

    Raises:
        InputError: it is not.
    """
    if not re.fullmatch(r"[1-9]\d*(ms|s|m|h|d)", text):
        raise InputError(f"{text!r} is not a duration; write a whole number and ms, s, m, h or d, as in 500ms.")
    return text
