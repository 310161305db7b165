"""What things may be called. Loads nothing, so that whoever only needs a path need not load the contract."""

from __future__ import annotations

JOB_ID_PATTERN = r"^[A-Za-z0-9][A-Za-z0-9._-]{0,127}$"
"""A job id names a folder, a Prometheus label and a Ray actor, so it is kept to what all three take."""

NAME_PATTERN = r"^[A-Za-z0-9][A-Za-z0-9 ._/@-]{0,127}$"
"""A team's or project's name: one line that needs no quotes anywhere it is shown."""

NODE_PATTERN = r"^[A-Za-z0-9_][A-Za-z0-9._:-]{0,254}$"
"""A node's name is a folder and a Prometheus label; host names, IP addresses and Ray node ids all fit."""
