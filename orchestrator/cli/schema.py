"""``wattledger schema``: the manifest's JSON Schema, for editors."""

from __future__ import annotations

from orchestrator.cli import options
from orchestrator.manifest import manifest_schema


def schema() -> None:
    """Print the JSON Schema of a manifest; point your editor's YAML plugin at it."""
    options.print_json(manifest_schema())
