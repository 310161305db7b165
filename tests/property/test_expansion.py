"""Whatever a manifest sweeps, its jobs are the whole product, each once, and the same on every machine."""

import itertools
import json

from hypothesis import given, settings
from hypothesis import strategies as st

from orchestrator.manifest import ACCELERATOR_TYPES, expand, expand_all, parse_manifest
from orchestrator.manifest.model import SWEEPABLE, value_at
from workers.contract import JobSpec
from workers.errors import ManifestError

VALUES = {
    "model": st.sampled_from(["tiny/vit", "tiny/convnext"]),
    "dataset": st.sampled_from([None, "digits-rotated"]),
    "adapter.method": st.sampled_from(["full", "lora"]),
    "adapter.rank": st.integers(1, 64),
    "adapter.alpha": st.none() | st.floats(0.5, 64),
    "adapter.targets": st.none() | st.lists(st.sampled_from(["q_proj", "fc1"]), min_size=1, max_size=2),
    "training.epochs": st.integers(1, 100),
    "training.learning_rate": st.floats(1e-9, 1),
    "evaluation.metric": st.sampled_from([None, "accuracy", "f1_macro"]),
    "resources.accelerators": st.lists(st.sampled_from(ACCELERATOR_TYPES), max_size=3, unique=True),
    "resources.cpus": st.floats(0.25, 64),
    "power.cap_percent": st.none() | st.integers(1, 100),
    "accounting.region": st.sampled_from([None, "USA", "NOR"]),
    "schedule.priority": st.integers(-5, 5),
}
"""Good values of a good part of what can be swept."""


def unique_lists(values):
    return st.lists(values, min_size=1, max_size=4, unique_by=json.dumps)


@st.composite
def manifests(draw):
    """A manifest with some axes, and how many jobs it makes for one accelerator type."""
    paths = draw(st.lists(st.sampled_from(sorted(VALUES)), unique=True, max_size=4))
    sweep = {path: draw(unique_lists(VALUES[path])) for path in paths}
    seeds = draw(st.lists(st.integers(0, 2**32 - 1), min_size=1, max_size=3, unique=True))
    return {
        "version": 1,
        "name": draw(st.from_regex(r"[A-Za-z0-9][A-Za-z0-9._-]{0,20}", fullmatch=True)),
        "task": "digits",
        "model": "tiny/vit",
        "adapter": {"method": "full"},
        "seeds": seeds,
        "sweep": sweep,
    }


def read(data):
    """JSON is YAML, and quotes what would otherwise be read as a number."""
    return parse_manifest(json.dumps(data), source="m.json")


def outcome(text, profile=None):
    """The manifest, or what was said against it."""
    try:
        return parse_manifest(text, source="m.yaml", profile=profile), ()
    except ManifestError as error:
        return None, error.problems


@given(manifests())
def test_the_jobs_are_the_whole_product_in_the_order_of_the_file(data):
    jobs = expand(read(data), accelerator_types=[], submission_id="s")
    expected = list(itertools.product(*data["sweep"].values(), data["seeds"]))
    told = [(*(value_at(json.loads(job.to_json()), path) for path in data["sweep"]), job.seed) for job in jobs]
    assert told == expected


@given(manifests(), st.lists(st.sampled_from(ACCELERATOR_TYPES), min_size=1, max_size=4))
def test_each_multiplies_the_jobs_by_the_types_there_are(data, types):
    data["sweep"].pop("resources.accelerators", None)
    alone = expand(read(data), accelerator_types=[], submission_id="s")
    data["resources"] = {"accelerators": "each"}
    jobs = expand(read(data), accelerator_types=types, submission_id="s")
    assert len(jobs) == len(alone) * len(set(types))
    assert {job.resources.accelerators for job in jobs} == {(one,) for one in types}


@given(manifests(), st.text(max_size=20))
def test_ids_are_unique_and_the_same_every_time(data, submission):
    manifest = read(data)
    ids = [job.job_id for job in expand(manifest, accelerator_types=[], submission_id=submission)]
    again = [job.job_id for job in expand(read(data), accelerator_types=[], submission_id=submission)]
    assert len(set(ids)) == len(ids)
    assert ids == again


@given(manifests())
def test_every_job_is_read_back_equal_from_its_json(data):
    for job in expand(read(data), accelerator_types=[], submission_id="s"):
        assert JobSpec.from_json(job.to_json()) == job


@given(manifests(), st.randoms(use_true_random=False))
def test_ids_do_not_depend_on_the_order_of_keys_and_axes(data, random):
    axes = list(data["sweep"].items())
    keys = list(data.items())
    random.shuffle(axes)
    random.shuffle(keys)
    shuffled = {**dict(keys), "sweep": dict(axes)}
    ids, others = (
        {job.job_id for job in expand(read(form), accelerator_types=[], submission_id="s")} for form in (data, shuffled)
    )
    assert ids == others


@st.composite
def submissions(draw):
    """Manifests of one submission in any order, each of which needs some of those that were made before it."""
    made = []
    for name in draw(st.lists(st.sampled_from("abcdef"), min_size=1, max_size=5, unique=True)):
        data = draw(manifests())
        others = [other["name"] for other in made]
        needs = draw(st.lists(st.sampled_from(others), unique=True, max_size=3)) if others else []
        baseline = draw(st.sampled_from(["own", "shared"]))
        made.append({**data, "name": name, "needs": needs, "evaluation": {"baseline": baseline}})
    return draw(st.permutations(made))


@given(submissions(), st.text(max_size=5))
@settings(max_examples=30)
def test_needs_of_a_submission_exist_come_first_and_are_the_same_every_time(submission, submission_id):
    def expanded(order):
        return expand_all([read(data) for data in order], accelerator_types=["L4"], submission_id=submission_id)

    needs_of = {data["name"]: set(data["needs"]) for data in submission}
    manifest_of = {}
    found = expanded(submission)
    for manifest, jobs in found:
        for job in jobs:
            assert set(job.needs) <= manifest_of.keys(), "a need is a job that came before, so there is no circle"
            needed = {manifest_of[need] for need in job.needs} - {manifest.name}
            if job.kind == "finetune":
                assert needed == needs_of[manifest.name]
                assert (job.baseline_job is None) == (job.evaluation.baseline == "own")
                assert job.baseline_job is None or job.baseline_job in job.needs
            else:
                assert needed <= needs_of[manifest.name]
            manifest_of[job.job_id] = manifest.name
    assert len(manifest_of) == sum(len(jobs) for _, jobs in found)
    assert sorted(job.to_json() for _, jobs in expanded(submission[::-1]) for job in jobs) == sorted(
        job.to_json() for _, jobs in found for job in jobs
    )


@given(manifests(), manifests())
@settings(max_examples=50)
def test_a_job_needs_exactly_those_that_agree_with_it_in_all_that_both_vary(first, second):
    pair = [read({**first, "name": "first"}), read({**second, "name": "second", "needs": ["first"]})]
    (_, before), (_, after) = expand_all(pair, accelerator_types=[], submission_id="s")

    def said(job):
        body = json.loads(job.to_json())
        return {**{path: json.dumps(value_at(body, path)) for path in VALUES}, "seed": job.seed}

    def varies(jobs, path):
        return len({said(job)[path] for job in jobs}) > 1

    both = [path for path in [*VALUES, "seed"] if varies(before, path) and varies(after, path)]
    for job in after:
        agreeing = [other.job_id for other in before if all(said(other)[path] == said(job)[path] for path in both)]
        assert list(job.needs) == (agreeing or [other.job_id for other in before])


@given(manifests())
def test_fine_tunes_share_a_baseline_exactly_where_their_base_is_the_same(data):
    def base(job):
        return job.task, job.model, job.dataset, job.quantization, job.seed, job.evaluation

    own = expand(read(data), accelerator_types=[], submission_id="s")
    data["evaluation"] = {"baseline": "shared"}
    jobs = expand(read(data), accelerator_types=[], submission_id="s")
    baselines = {job.job_id: job for job in jobs if job.kind == "evaluate"}
    tuned = [job for job in jobs if job.kind == "finetune"]
    assert len(tuned) == len(own)
    assert len({base(job) for job in baselines.values()}) == len(baselines)
    assert {job.baseline_job for job in tuned} == set(baselines)
    assert all(base(baselines[job.baseline_job]) == base(job) for job in tuned)


TEXTS = st.text(st.characters(exclude_categories=()), max_size=10)
"""Also what UTF-8 cannot hold."""
JUNK = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | TEXTS | st.sampled_from(["each", "lora"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXTS, inner, max_size=3),
    max_leaves=8,
)
KEYS = st.sampled_from([*SWEEPABLE, "seeds", "sweep", "name", "version", "budget", "adapter", "resources"])


@given(manifests(), st.dictionaries(KEYS, JUNK, max_size=4), st.dictionaries(KEYS, st.lists(JUNK, max_size=3)))
@settings(max_examples=300)
def test_junk_is_refused_with_a_line_or_expands_but_never_escapes_as_a_crash(data, junk, axes):
    data["sweep"].update(axes)
    for path, value in junk.items():
        section, _, key = path.rpartition(".")
        holder = data.setdefault(section, {}) if section else data
        if isinstance(holder, dict):
            holder[key] = value
    text = json.dumps(data, indent=1).replace("Infinity", ".inf").replace("NaN", ".nan")
    manifest, told = outcome(text)
    if manifest is None:
        assert told
        assert all(0 <= line <= text.count("\n") + 1 for line, _ in told)
        assert "\n".join(sentence for _, sentence in told).encode()
    else:
        assert expand(manifest, accelerator_types=["L4"], submission_id="s")


@given(st.text())
def test_any_text_at_all_is_read_or_refused(text):
    manifest, told = outcome(text)
    assert (manifest is None) == bool(told)
