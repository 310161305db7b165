"""What did the user ask for? A YAML manifest to checked jobs, or to all of its problems at once.

``document`` reads the text and knows the lines; ``model`` says what a manifest may hold; ``fields``, ``sweep``,
``together``, ``files`` and ``deadlines`` find what is wrong; ``profiles`` makes another size of it; ``parse`` puts all
in one message, and ``submission`` does for several manifests. ``expand`` makes the jobs, ``needs`` says which of them
need which, and ``baselines`` adds those that are shared. ``schema`` helps editors.
"""

from orchestrator.manifest.deadlines import deadline_ns
from orchestrator.manifest.expand import expand, expand_all
from orchestrator.manifest.files import files_of
from orchestrator.manifest.model import ACCELERATOR_TYPES, MAX_JOBS, Manifest
from orchestrator.manifest.parse import parse_manifest
from orchestrator.manifest.schema import manifest_schema
from orchestrator.manifest.submission import ManifestFile, load_manifest, load_manifests

__all__ = [
    "ACCELERATOR_TYPES",
    "MAX_JOBS",
    "Manifest",
    "ManifestFile",
    "deadline_ns",
    "expand",
    "expand_all",
    "files_of",
    "load_manifest",
    "load_manifests",
    "manifest_schema",
    "parse_manifest",
]
