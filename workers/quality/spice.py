"""SPICE: do captions say the same things about the same objects? The authors' Java program, arXiv 1607.08822."""

from __future__ import annotations

import importlib.util
import json
import os
import shutil
import subprocess
import tempfile
from collections.abc import Sequence
from pathlib import Path

from workers.errors import UnknownNameError
from workers.quality.result import ScoreResult, averaged, text_pairs, unknown

JAR_VARIABLE = "WATTLEDGER_SPICE_JAR"
"""Names the jar where the package pycocoevalcap, which carries one, is not installed."""
_PARSER = ("stanford-corenlp-3.6.0.jar", "stanford-corenlp-3.6.0-models.jar")
"""What the jar needs in ``lib/`` beside it: Stanford's parser of 2015-12-09, which is fetched apart."""
_OPENED = ("java.lang", "java.util", "java.math", "java.net", "java.text", "sun.nio.ch")
"""Packages that its libraries of 2016 look into, which Java closed in version 16."""
_HEAP = "-Xmx8G"
"""The authors' setting; the parser alone takes over 3 GB."""


def evaluate(
    name: str,
    predictions: Sequence[str],
    references: Sequence[str | Sequence[str]],
    *,
    timeout_s: float = 3600.0,
) -> ScoreResult:
    """The F-measure over the tuples (object, attribute, relation) of captions and all their references.

    Unknown, with the reason, where Java, the jar or its parser is missing, and where the program fails.

    Raises:
        UnknownNameError: no such score.
        InputError: nothing to score, not one prediction for each item, or an item without a reference.
    """
    if name != "spice":
        raise UnknownNameError("score", name, ("spice",))
    pairs = text_pairs(name, predictions, references)
    jar = find_jar()
    lacking = _lacking(jar)
    if jar is None or lacking is not None:
        return unknown(name, lacking or "SPICE's jar is missing")
    captions = [
        {"image_id": index, "test": prediction, "refs": list(texts)} for index, (prediction, texts) in enumerate(pairs)
    ]
    with tempfile.TemporaryDirectory(prefix="spice-") as folder:
        return _run(name, jar, captions, Path(folder), timeout_s)


def find_jar() -> Path | None:
    """The jar that ``WATTLEDGER_SPICE_JAR`` names, else pycocoevalcap's; ``None`` where there is neither."""
    named = os.environ.get(JAR_VARIABLE)
    if named:
        return Path(named)
    package = importlib.util.find_spec("pycocoevalcap")
    places = [] if package is None else list(package.submodule_search_locations or [])
    jars = [Path(place) / "spice" / "spice-1.0.jar" for place in places]
    return next((jar for jar in jars if jar.is_file()), None)


def _lacking(jar: Path | None) -> str | None:
    """What this machine lacks to run SPICE; ``None`` where it has everything."""
    if shutil.which("java") is None:
        return "SPICE is a Java program, and there is no java here"
    if jar is None or not jar.is_file():
        return f"SPICE's jar is not here; pip install pycocoevalcap, or name the jar in {JAR_VARIABLE}"
    missing = [part for part in _PARSER if not (jar.parent / "lib" / part).is_file()]
    return f"SPICE's parser is not here: put {' and '.join(missing)} into {jar.parent / 'lib'}" if missing else None


def _run(name: str, jar: Path, captions: list[dict[str, object]], folder: Path, timeout_s: float) -> ScoreResult:
    given, out = folder / "captions.json", folder / "scores.json"
    given.write_text(json.dumps(captions), encoding="utf-8")
    opens = [f"--add-opens=java.base/{package}=ALL-UNNAMED" for package in _OPENED]
    command = ["java", *opens, _HEAP, "-jar", str(jar), str(given), "-out", str(out), "-silent"]
    try:
        subprocess.run(command, cwd=jar.parent, capture_output=True, check=True, text=True, timeout=timeout_s)
        answered = {row["image_id"]: row["scores"]["All"]["f"] for row in json.loads(out.read_text(encoding="utf-8"))}
    except subprocess.TimeoutExpired:
        return unknown(name, f"SPICE did not end within {timeout_s:g} s")
    except subprocess.CalledProcessError as error:
        last = (error.stderr.strip() or "no word").splitlines()[-1]
        return unknown(name, f"SPICE ended with code {error.returncode}: {last}")
    except (OSError, ValueError, KeyError, TypeError) as error:
        return unknown(name, f"SPICE's answer could not be read: {error}")
    return averaged(name, [answered.get(index) for index in range(len(captions))])
