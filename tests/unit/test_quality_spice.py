"""SPICE, by a stand-in for its Java program: it reads what the program reads, writes what it writes, and can fail.
It does not parse anything: a caption's F is the share of its words that are in a reference."""

from __future__ import annotations

import stat
import sys
from pathlib import Path

import pytest

from workers.quality.spice import JAR_VARIABLE, evaluate

JAVA = """#!{python}
import json, sys
arguments = sys.argv[1:]
jar = arguments.index("-jar")
assert arguments[jar - 1].startswith("-Xmx") and arguments[jar + 1].endswith("spice-1.0.jar")
captions = json.load(open(arguments[jar + 2]))
if any(row["test"] == "crash" for row in captions):
    sys.exit("a line before\\njava.lang.OutOfMemoryError: heap space")
out = open(arguments[arguments.index("-out") + 1], "w")
if any(row["test"] == "babble" for row in captions):
    out.write("not JSON")
    sys.exit()
rows = []
for row in captions[::-1]:
    words = row["test"].split()
    known = set(" ".join(row["refs"]).split())
    f = sum(word in known for word in words) / len(words)
    rows.append({{"image_id": row["image_id"], "scores": {{"All": {{"pr": f, "re": f, "f": f}}}}}})
json.dump(rows, out)
"""


@pytest.fixture
def program(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The jar's folder with everything SPICE needs, and a java that behaves."""
    java, jar, parser = tmp_path / "bin" / "java", tmp_path / "spice" / "spice-1.0.jar", tmp_path / "spice" / "lib"
    for folder in (java.parent, parser):
        folder.mkdir(parents=True)
    java.write_text(JAVA.format(python=sys.executable), encoding="utf-8")
    java.chmod(java.stat().st_mode | stat.S_IXUSR)
    jar.write_bytes(b"")
    for name in ("stanford-corenlp-3.6.0.jar", "stanford-corenlp-3.6.0-models.jar"):
        (parser / name).write_bytes(b"")
    monkeypatch.setenv("PATH", str(java.parent))
    monkeypatch.setenv(JAR_VARIABLE, str(jar))
    return jar.parent


def reason(said: str = "a cat", **given: float) -> str:
    result = evaluate("spice", [said], ["a cat"], **given)
    assert result.value is None
    return str(result.reason)


def test_without_java_it_is_unknown(program: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(program))
    assert reason() == "SPICE is a Java program, and there is no java here"


def test_without_the_jar_it_is_unknown(program: Path) -> None:
    (program / "spice-1.0.jar").unlink()
    assert reason() == f"SPICE's jar is not here; pip install pycocoevalcap, or name the jar in {JAR_VARIABLE}"


def test_without_its_parser_it_is_unknown(program: Path) -> None:
    (program / "lib" / "stanford-corenlp-3.6.0-models.jar").unlink()
    assert reason() == (f"SPICE's parser is not here: put stanford-corenlp-3.6.0-models.jar into {program / 'lib'}")


@pytest.mark.usefixtures("program")
def test_a_program_that_fails_leaves_it_unknown_with_its_last_word() -> None:
    assert reason("crash") == "SPICE ended with code 1: java.lang.OutOfMemoryError: heap space"


@pytest.mark.usefixtures("program")
def test_an_answer_that_cannot_be_read_leaves_it_unknown() -> None:
    assert reason("babble").startswith("SPICE's answer could not be read")


@pytest.mark.usefixtures("program")
def test_a_program_that_takes_too_long_leaves_it_unknown() -> None:
    assert reason(timeout_s=1e-6) == "SPICE did not end within 1e-06 s"


@pytest.mark.usefixtures("program")
def test_captions_keep_their_order_and_all_references_are_given() -> None:
    result = evaluate("spice", ["a cat", "a dog sleeps on"], [["one cat", "a tree"], ["dog"]])
    assert (result.per_item, result.value) == ((1.0, 0.25), 0.625)
