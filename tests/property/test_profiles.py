"""A manifest under a profile is the manifest one would have written by hand."""

import json

from hypothesis import given, settings
from hypothesis import strategies as st

from orchestrator.manifest import expand, parse_manifest
from orchestrator.manifest.model import SWEEPABLE
from tests.property.test_expansion import JUNK, TEXTS, VALUES, manifests, outcome, unique_lists

PLAIN = {path: values for path, values in VALUES.items() if path != "adapter.method"}


def read(data, profile=None):
    return parse_manifest(json.dumps(data), source="m.json", profile=profile)


def jobs_of(manifest):
    return expand(manifest, accelerator_types=["L4"], submission_id="s")


def put(body, path, value):
    section, _, key = path.rpartition(".")
    (body.setdefault(section, {}) if section else body)[key] = value


@st.composite
def with_profile(draw):
    """A manifest, one of its profiles, and what someone would write who had only that profile."""
    data = draw(manifests())
    for path in draw(st.lists(st.sampled_from(sorted(PLAIN)), unique=True, max_size=4)):
        put(data, path, draw(PLAIN[path]))
    by_hand = json.loads(json.dumps(data))
    by_hand["name"] += "-tiny"
    change = {}
    swept = draw(st.lists(st.sampled_from(sorted(PLAIN)), unique=True, max_size=3))
    gone = draw(st.lists(st.sampled_from(sorted(data["sweep"])), unique=True)) if data["sweep"] else []
    for axis in swept:
        put(change, "sweep", {**change.get("sweep", {}), axis: draw(unique_lists(PLAIN[axis]))})
        by_hand["sweep"][axis] = change["sweep"][axis]
    for axis in set(gone) - set(swept):
        put(change, "sweep", {**change.get("sweep", {}), axis: None})
        del by_hand["sweep"][axis]
    free = sorted(PLAIN.keys() - data["sweep"].keys() | change.get("sweep", {}).keys() - {"adapter.method"})
    for path in draw(st.lists(st.sampled_from(free), unique=True, max_size=5)) if free else []:
        value = draw(PLAIN[path])
        put(change, path, value)
        put(by_hand, path, value)
    if draw(st.booleans()):
        change["seeds"] = by_hand["seeds"] = draw(st.lists(st.integers(0, 9), min_size=1, max_size=3, unique=True))
    return {**data, "profiles": {"other": {}, "tiny": change}}, by_hand


@given(with_profile())
def test_a_profile_gives_what_the_merged_manifest_written_by_hand_gives(case):
    data, by_hand = case
    applied, expected = read(data, "tiny"), read(by_hand)
    assert applied == expected
    assert applied.adapter.model_fields_set == expected.adapter.model_fields_set
    assert jobs_of(applied) == jobs_of(expected)


@given(with_profile())
def test_profiles_that_are_not_chosen_change_nothing(case):
    data, _ = case
    plain = {key: value for key, value in data.items() if key != "profiles"}
    assert jobs_of(read(data)) == jobs_of(read(plain))
    ids = {job.job_id for job in jobs_of(read(data))}
    for name in data["profiles"]:
        assert ids.isdisjoint(job.job_id for job in jobs_of(read(data, name)))


KEYS = st.sampled_from(["model", "adapter", "training", "seeds", "sweep", "needs", "inference", "resources", "name"])
AXES = st.dictionaries(st.sampled_from(sorted(SWEEPABLE)) | TEXTS, st.lists(JUNK, max_size=2) | JUNK)
CHANGES = st.dictionaries(KEYS | TEXTS, JUNK | AXES, max_size=4)


@given(manifests(), st.dictionaries(st.sampled_from(["tiny", "b"]) | TEXTS, JUNK | CHANGES, max_size=3))
@settings(max_examples=100)
def test_junk_in_a_profile_is_refused_with_a_line_or_expands_but_never_escapes_as_a_crash(data, profiles):
    text = json.dumps({**data, "profiles": profiles}, indent=1).replace("Infinity", ".inf").replace("NaN", ".nan")
    for profile in (None, "tiny"):
        manifest, told = outcome(text, profile)
        if manifest is None:
            assert told
            assert all(0 <= line <= text.count("\n") + 1 for line, _ in told)
            assert "\n".join(sentence for _, sentence in told).encode()
        else:
            assert jobs_of(manifest)
