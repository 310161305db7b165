"""What did the user ask for? A YAML manifest to checked jobs, or to all of its problems at once.

``document`` reads the text and knows the lines; ``model`` says what a manifest may hold; ``fields``, ``sweep``,
``together`` and ``files`` find what is wrong; ``parse`` puts it in one message; ``expand`` makes the jobs; ``schema``
helps editors.
"""

from orchestrator.manifest.expand import expand
from orchestrator.manifest.files import files_of
from orchestrator.manifest.model import ACCELERATOR_TYPES, MAX_JOBS, Manifest
from orchestrator.manifest.parse import load_manifest, parse_manifest
from orchestrator.manifest.schema import manifest_schema

__all__ = [
    "ACCELERATOR_TYPES",
    "MAX_JOBS",
    "Manifest",
    "expand",
    "files_of",
    "load_manifest",
    "manifest_schema",
    "parse_manifest",
]
