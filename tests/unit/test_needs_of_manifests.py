"""Manifests that need each other are checked together, and their jobs pair up by what both vary."""

import json
from pathlib import Path

import pytest

from orchestrator.manifest import Manifest, expand, expand_all, load_manifests, parse_manifest
from orchestrator.manifest.needs import Cycle, in_order
from workers.contract import JobSpec
from workers.errors import InputError, ManifestError

ROOT = Path(__file__).resolve().parents[2]
TUNE = "version: 1\nname: tune\ntask: digits\nmodel: tiny/vit\nadapter: {method: lora}\n"
CHECK = "version: 1\nname: check\nkind: evaluate\ntask: digits\nmodel: tiny/vit\n"
"""Five lines each; what a test adds starts on line 6."""
TRAINED = "adapter: {trained_by: tune}\n"


def read(*texts):
    """The manifests of some texts, none of them with a problem."""
    return [parse_manifest(text, source="m.yaml") for text in texts]


def jobs_of(*texts, known=None, types=("H100", "L4"), submission_id="s"):
    """Name of each manifest to its jobs, in the order of the submission."""
    expanded = expand_all(read(*texts), accelerator_types=types, submission_id=submission_id, known=known or {})
    return {manifest.name: jobs for manifest, jobs in expanded}


def refusal(*texts, known=None):
    """Why a submission cannot be expanded."""
    with pytest.raises(InputError) as caught:
        jobs_of(*texts, known=known)
    return str(caught.value)


def files(folder, **texts):
    """A file for each text, and their paths."""
    paths = [folder / f"{name}.yaml" for name in texts]
    for path, text in zip(paths, texts.values(), strict=True):
        path.write_text(text)
    return paths


class TestFilesOfOneSubmission:
    def test_the_problems_of_all_files_are_told_at_once(self, tmp_path):
        paths = files(tmp_path, a=TUNE + "seed: 1\n", b=CHECK + "training: {epochs: 0}\n", c=TUNE.replace("tune", "ok"))
        with pytest.raises(InputError) as caught:
            load_manifests([*paths, tmp_path / "gone.yaml"])
        told = str(caught.value).replace(f"{tmp_path}/", "").splitlines()
        assert told[0] == "gone.yaml does not exist. Give the path of a manifest, such as quickstart.yaml."
        assert told[1] == "1 problem in a.yaml; nothing was submitted."
        assert told[2].startswith("a.yaml:6: unknown key 'seed'. Did you mean 'seeds'?")
        assert told[3] == "1 problem in b.yaml; nothing was submitted."
        assert told[4] == "b.yaml:6: training.epochs: input should be greater than or equal to 1 (given 0)"
        assert len(told) == 5

    def test_each_document_of_a_file_keeps_its_lines(self, tmp_path):
        text = f"# two\n{TUNE}seed: 1\n---\n{CHECK}colour: red\n---\nversion: 1\nname: third\ntask: digits\n"
        (path,) = files(tmp_path, a=text)
        with pytest.raises(ManifestError) as caught:
            load_manifests([path])
        assert [(line, told.partition(" Known")[0]) for line, told in caught.value.problems] == [
            (7, "unknown key 'seed'. Did you mean 'seeds'?"),
            (14, "unknown key 'colour'."),
            (16, "a fine-tune needs adapter.method full or lora"),
            (16, "model is missing"),
        ]

    def test_two_manifests_of_one_name_are_told_where_both_are(self, tmp_path):
        paths = files(tmp_path, a=f"{TUNE}---\n{CHECK}", b=f"{TUNE}seed: 1\n")
        with pytest.raises(ManifestError) as caught:
            load_manifests(paths)
        assert caught.value.problems[0] == (
            2,
            f"name: tune is already the name of the manifest at {paths[0]}:2; rename one",
        )
        assert len(caught.value.problems) == 2

    def test_a_file_given_twice_is_two_manifests_of_one_name(self, tmp_path):
        (path,) = files(tmp_path, a=TUNE)
        with pytest.raises(ManifestError, match="tune is already the name of the manifest at"):
            load_manifests([path, path])

    def test_a_cycle_is_named_with_its_path_at_the_line_that_begins_it(self, tmp_path):
        paths = files(
            tmp_path,
            a=TUNE + "needs: [last]\n",
            b=CHECK + "needs:\n- other\n- tune\n",
            c=CHECK.replace("check", "last") + "sweep:\n  adapter.trained_by: [null, check]\n",
        )
        with pytest.raises(ManifestError) as caught:
            load_manifests(paths)
        told = "needs go round in a circle, so none could ever start: "
        (problem,) = caught.value.problems
        assert problem[1].startswith(told)
        ring = problem[1].removeprefix(told).removesuffix("; remove one of them").split(" → ")
        assert (ring[0], len(ring)) == (ring[-1], 4)
        needs = {"tune": "last", "check": "tune", "last": "check"}
        assert [needs[name] for name in ring[:-1]] == ring[1:]
        line_of = {"tune": ("a", 6), "check": ("b", 8), "last": ("c", 7)}
        assert (Path(caught.value.source).stem, problem[0]) == line_of[ring[0]]

    def test_a_manifest_that_needs_itself_is_a_cycle(self, tmp_path):
        (path,) = files(tmp_path, a=TUNE + "needs: [tune]\n")
        with pytest.raises(ManifestError, match=r"a\.yaml:6: needs go round in a circle.*: tune → tune; remove one"):
            load_manifests([path])
        assert "tune → tune" in refusal(TUNE + "needs: [tune]\n")

    def test_a_file_of_nothing_but_separators_is_empty(self, tmp_path):
        (path,) = files(tmp_path, a="---\n---\n# nothing\n")
        with pytest.raises(ManifestError, match="empty; a manifest has at least version, name, task and model"):
            load_manifests([path])

    def test_what_is_not_yaml_any_more_in_a_later_document_names_its_line(self, tmp_path):
        (path,) = files(tmp_path, a=f"{TUNE}---\nname: [a\n")
        with pytest.raises(ManifestError, match=r"a\.yaml:8: not YAML"):
            load_manifests([path])

    def test_a_deadline_is_held_against_the_clock(self, tmp_path):
        (path,) = files(tmp_path, a=TUNE + "schedule: {deadline: 2001-01-01T00:00:00Z}\n")
        with pytest.raises(ManifestError, match="2001-01-01T00:00:00Z is in the past"):
            load_manifests([path])
        assert load_manifests([path], now_ns=0)[0].manifest.schedule.deadline == "2001-01-01T00:00:00Z"

    def test_manifests_come_in_the_order_given_each_with_its_file(self, tmp_path):
        paths = files(tmp_path, a=CHECK, b=f"---\n{TUNE}---\n{TUNE.replace('tune', 'again')}---\n")
        found = load_manifests(paths)
        assert [(one.path, one.manifest.name) for one in found] == [
            (paths[0], "check"),
            (paths[1], "tune"),
            (paths[1], "again"),
        ]


class TestNeedsNobodyKnows:
    def test_an_unknown_need_lists_the_nearest_names(self):
        told = refusal(TUNE, CHECK + "needs: [tun, elsewhere]\n", known={"tune-1": ()})
        assert told.splitlines() == [
            "check needs what is not known: unknown manifest, job or run 'tun'. Did you mean 'tune' or 'tune-1'? "
            "Known: the manifests submitted together (tune, check) and the jobs and runs of the ledger.",
            "check needs what is not known: unknown manifest, job or run 'elsewhere'. "
            "Known: the manifests submitted together (tune, check) and the jobs and runs of the ledger.",
        ]

    def test_manifests_of_one_name_that_were_never_files_are_refused_too(self):
        assert refusal(TUNE, TUNE) == "two manifests of a submission have the same name. Rename one of them."

    def test_more_needs_than_the_head_could_hold_are_refused(self):
        numbers = ", ".join(map(str, range(1, 1002)))
        check = f"{CHECK}needs: [tune]\nsweep: {{evaluation.batch_size: [{numbers}]}}\n"
        told = refusal(f"{TUNE}seeds: [{numbers}]\n", check)
        assert told.startswith("the jobs of check have more than 1,000,000 needs. Sweep the same keys in both")


class TestPairs:
    def test_jobs_need_those_that_agree_in_what_both_vary(self):
        axes = "seeds: [0, 1]\nsweep: {model: [tiny/vit, tiny/convnext], %s}\n"
        found = jobs_of(
            CHECK + "needs: [tune]\n" + axes % "evaluation.batch_size: [1, 2]",
            TUNE + axes % "adapter.rank: [4, 8]",
        )
        assert list(found) == ["tune", "check"]
        tuned = {job.job_id: job for job in found["tune"]}
        assert len(found["check"]) == 8
        for job in found["check"]:
            needed = [tuned[need] for need in job.needs]
            assert [(need.model, need.seed, need.adapter.rank) for need in needed] == [
                (job.model, job.seed, 4),
                (job.model, job.seed, 8),
            ]

    def test_what_only_one_of_them_varies_does_not_tell_apart(self):
        found = jobs_of(TUNE + "seeds: [1, 2]\n", CHECK + "needs: [tune]\n")
        assert [job.needs for job in found["check"]] == [tuple(job.job_id for job in found["tune"])]

    def test_a_value_without_counterpart_waits_for_all(self):
        found = jobs_of(TUNE + "seeds: [1, 2]\n", CHECK + "needs: [tune]\nseeds: [2, 3]\n")
        first, second = (job.job_id for job in found["tune"])
        assert [job.needs for job in found["check"]] == [(second,), (first, second)]

    def test_each_accelerator_pairs_with_itself(self):
        each = "resources: {accelerators: each}\n"
        found = jobs_of(TUNE + each, CHECK + each + "needs: [tune]\n")
        by_id = {job.job_id: job.resources.accelerators for job in found["tune"]}
        assert [(job.resources.accelerators, by_id[job.needs[0]], len(job.needs)) for job in found["check"]] == [
            (("H100",), ("H100",), 1),
            (("L4",), ("L4",), 1),
        ]

    def test_labels_pair_up_as_any_value_does(self):
        labels = "sweep: {resources.labels: [{rack: a}, {rack: b, row: '1'}]}\n"
        found = jobs_of(TUNE + labels, CHECK + labels + "needs: [tune]\n")
        assert [job.needs for job in found["check"]] == [(job.job_id,) for job in found["tune"]]

    def test_a_run_of_the_ledger_pairs_up_as_a_manifest_does(self):
        earlier = jobs_of(TUNE + "seeds: [1, 2]\n", submission_id="before")["tune"]
        found = jobs_of(CHECK + "seeds: [2, 1]\nneeds: [run-7]\n", known={"run-7": earlier})
        assert [job.needs for job in found["check"]] == [(earlier[1].job_id,), (earlier[0].job_id,)]

    def test_a_manifest_of_the_submission_goes_before_what_the_ledger_knows_by_its_name(self):
        earlier = jobs_of(TUNE, submission_id="before")["tune"]
        found = jobs_of(CHECK + "needs: [tune]\n", TUNE, known={"tune": earlier})
        assert found["check"][0].needs == (found["tune"][0].job_id,)

    def test_ids_are_the_same_after_the_ledger_learnt_another_run_of_that_name(self):
        first = jobs_of(TUNE, submission_id="a")["tune"]
        later = jobs_of(TUNE, submission_id="b")["tune"]
        one, other = (jobs_of(CHECK + TRAINED, known={"tune": known})["check"][0] for known in (first, later))
        assert one.job_id == other.job_id
        assert one.needs != other.needs

    def test_a_job_whose_need_became_another_is_another(self):
        one, other = (
            jobs_of(TUNE + f"training: {{epochs: {epochs}}}\n", CHECK + "needs: [tune]\n")["check"][0]
            for epochs in (1, 2)
        )
        assert one.job_id != other.job_id


class TestWeightsOfAnother:
    def test_each_job_takes_the_weights_of_the_fine_tune_like_it(self):
        axes = "seeds: [0, 1]\nsweep: {model: [tiny/vit, tiny/convnext]}\n"
        found = jobs_of(CHECK + TRAINED + axes, TUNE.replace("lora", "lora, rank: 4") + axes)
        assert [(job.adapter_job, job.needs) for job in found["check"]] == [
            (tuned.job_id, (tuned.job_id,)) for tuned in found["tune"]
        ]
        assert {(job.adapter.method, job.adapter.rank, job.adapter.trained_by) for job in found["check"]} == {
            ("lora", 4, "tune")
        }

    def test_several_that_match_are_listed_with_what_tells_them_apart(self):
        tuned = TUNE + "sweep: {adapter.rank: [4, 8]}\n"
        first, second = (job.job_id for job in jobs_of(tuned)["tune"])
        assert refusal(tuned, CHECK + TRAINED) == (
            "check: adapter.trained_by: tune has 2 fine-tunes of task digits, model tiny/vit, seed 0: "
            f"{first} (adapter.rank 4), {second} (adapter.rank 8); sweep adapter.rank here too."
        )

    def test_the_adapters_keys_choose_among_them(self):
        tuned = TUNE + "sweep: {adapter.rank: [4, 8]}\n"
        found = jobs_of(tuned, CHECK + "adapter: {trained_by: tune, rank: 8}\n")
        assert found["check"][0].adapter_job == found["tune"][1].job_id
        found = jobs_of(tuned, CHECK + TRAINED + "sweep: {adapter.rank: [8, 4]}\n")
        assert [job.adapter_job for job in found["check"]] == [job.job_id for job in reversed(found["tune"])]

    def test_weights_on_a_base_of_another_seed_are_refused(self):
        (tuned,) = jobs_of(TUNE + "seeds: [3]\n")["tune"]
        assert refusal(TUNE + "seeds: [3]\n", CHECK + TRAINED) == (
            "check: adapter.trained_by: tune has no fine-tune of task digits, model tiny/vit, seed 0; "
            f"it has {tuned.job_id} (task digits, model tiny/vit, seed 3)."
        )

    def test_what_trained_nothing_has_no_weights(self):
        told = refusal(CHECK.replace("check", "tune"), CHECK + TRAINED)
        assert told.endswith(
            "tune has no fine-tune of task digits, model tiny/vit, seed 0; it has no fine-tune at all."
        )

    def test_a_swept_trainer_sets_base_and_tuned_beside_each_other(self):
        found = jobs_of(TUNE, CHECK + "sweep: {adapter.trained_by: [null, tune]}\n")
        base, tuned = found["check"]
        assert (base.adapter_job, base.needs, base.adapter.method) == (None, (), "none")
        assert (tuned.adapter_job, tuned.adapter.method) == (found["tune"][0].job_id, "lora")

    def test_a_job_of_the_ledger_can_be_named_by_its_id(self):
        (earlier,) = jobs_of(TUNE, submission_id="before")["tune"]
        text = CHECK.replace("evaluate", "inference") + f"adapter: {{trained_by: {earlier.job_id}}}\n"
        (job,) = jobs_of(text, known={earlier.job_id: (earlier,)})["check"]
        assert (job.adapter_job, job.needs) == (earlier.job_id, (earlier.job_id,))


class TestSharedBaseline:
    SHARED = "evaluation: {baseline: shared, batch_size: 16}\n"

    def test_fine_tunes_of_one_base_share_one_evaluation_that_comes_first(self):
        text = (
            TUNE + self.SHARED + "seeds: [0, 1]\nsweep: {model: [tiny/vit, tiny/convnext], adapter.rank: [2, 4, 8]}\n"
        )
        jobs = jobs_of(text)["tune"]
        baselines, tuned = jobs[:4], jobs[4:]
        assert [(job.kind, job.adapter.method, job.model, job.seed) for job in baselines] == [
            ("evaluate", "none", "tiny/vit", 0),
            ("evaluate", "none", "tiny/vit", 1),
            ("evaluate", "none", "tiny/convnext", 0),
            ("evaluate", "none", "tiny/convnext", 1),
        ]
        assert all(job.job_id.startswith("tune-baseline-") and job.evaluation.batch_size == 16 for job in baselines)
        by_base = {(job.model, job.seed): job.job_id for job in baselines}
        assert len(tuned) == 12
        assert all(
            job.baseline_job == by_base[job.model, job.seed] and job.needs == (job.baseline_job,) for job in tuned
        )

    def test_it_runs_on_one_gpu_of_any_type_that_one_of_them_may_use(self):
        text = TUNE + self.SHARED + "resources: {gpus: 4, nodes: 2, cpus: 3}\nschedule: {priority: 1}\n"
        sweep = "sweep: {resources.accelerators: [[L4], [H100, L4]], schedule.priority: [1, 7]}\n"
        baseline = jobs_of(text + sweep)["tune"][0]
        assert (baseline.resources.gpus, baseline.resources.nodes, baseline.resources.cpus) == (1, 1, 3)
        assert baseline.resources.accelerators == ("L4", "H100")
        assert baseline.schedule.priority == 7
        anywhere = jobs_of(text + "sweep: {resources.accelerators: [[L4], []]}\n")["tune"][0]
        assert anywhere.resources.accelerators == ()

    def test_who_scores_its_own_base_shares_none(self):
        jobs = jobs_of(TUNE + "sweep: {evaluation.baseline: [own, shared]}\n")["tune"]
        assert [(job.kind, job.baseline_job) for job in jobs] == [
            ("evaluate", None),
            ("finetune", None),
            ("finetune", jobs[0].job_id),
        ]

    def test_what_needs_the_manifest_needs_its_fine_tunes_and_not_their_baseline(self):
        found = jobs_of(TUNE + self.SHARED, CHECK + "needs: [tune]\n")
        assert found["check"][0].needs == (found["tune"][1].job_id,)

    def test_it_waits_for_what_all_of_them_wait_for(self):
        seeds = "seeds: [0, 1]\n"
        found = jobs_of(
            CHECK, CHECK.replace("check", "each") + seeds, TUNE + self.SHARED + seeds + "needs: [check, each]\n"
        )
        assert found["tune"][0].needs == (found["check"][0].job_id, found["each"][0].job_id)
        ranks = "sweep: {training.epochs: [1, 2]}\n"
        found = jobs_of(CHECK.replace("check", "each") + ranks, TUNE + self.SHARED + ranks + "needs: [each]\n")
        assert found["tune"][0].needs == ()

    def test_a_name_of_full_length_makes_ids_a_ledger_takes(self):
        (manifest,) = read(TUNE.replace("tune", "n" * 103) + self.SHARED)
        for job in expand(manifest, accelerator_types=[], submission_id="s"):
            assert JobSpec.from_json(job.to_json()) == job


def test_a_circle_of_names_is_found_wherever_it_hides():
    assert in_order({"a": ["b", "x"], "b": [], "c": ["a"]}) == ("b", "a", "c")
    assert in_order({"d": ["a"], "a": ["b"], "b": ["c"], "c": ["b"]}) in (
        Cycle(path=("b", "c", "b")),
        Cycle(path=("c", "b", "c")),
    )


@pytest.mark.parametrize("path", sorted((ROOT / "manifests").glob("*.yaml")), ids=lambda path: path.name)
def test_every_manifest_of_the_folder_expands_and_its_jobs_can_be_stored(path):
    manifests = [one.manifest for one in load_manifests([path])]
    expanded = expand_all(manifests, accelerator_types=["H100", "L4"], submission_id="s")
    assert sorted(manifest.name for manifest, _ in expanded) == sorted(manifest.name for manifest in manifests)
    jobs = [job for _, of_manifest in expanded for job in of_manifest]
    assert jobs
    assert all(JobSpec.from_json(job.to_json()) == job for job in jobs)
    assert json.loads(jobs[0].to_json())["job_id"] == jobs[0].job_id
    assert all(isinstance(manifest, Manifest) for manifest, _ in expanded)
