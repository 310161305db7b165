"""A profile is the same manifest at another size: checked whole, chosen by name, and never taken for the full one."""

import json
import re
from pathlib import Path

import pytest

from orchestrator.manifest import expand, expand_all, load_manifest, load_manifests, manifest_schema, parse_manifest
from orchestrator.manifest.model import MAX_PROFILES
from tests.unit.test_manifest import problems
from workers.errors import InputError, ManifestError

ROOT = Path(__file__).resolve().parents[2]
FULL = """\
version: 1
name: study
task: digits
model: tiny/vit
adapter: {method: lora, rank: 16}
training: {epochs: 9, batch_size: 8}
seeds: [0, 1, 2]
sweep:
  model: [tiny/vit, tiny/convnext]
  adapter.rank: [8, 16]
profiles:
"""
"""Eleven lines; what a test adds starts on line 12."""
TINY = "  tiny: {training: {max_steps: 20}, seeds: [0], sweep: {model: [tiny/vit], adapter.rank: null}}\n"
TUNE = "version: 1\nname: tune\ntask: digits\nmodel: tiny/vit\nadapter: {method: lora}\nprofiles: {tiny: {}}\n"
CHECK = "version: 1\nname: check\nkind: evaluate\ntask: digits\nmodel: tiny/vit\nprofiles: {tiny: {}}\n"


def read(text, profile=None):
    return parse_manifest(text, source="m.yaml", profile=profile)


def refusal(text, profile):
    with pytest.raises(ManifestError) as caught:
        read(text, profile)
    return [f"{line}: {told}" for line, told in caught.value.problems]


def files(folder, **texts):
    paths = [folder / f"{name}.yaml" for name in texts]
    for path, text in zip(paths, texts.values(), strict=True):
        path.write_text(text)
    return paths


class TestMistakes:
    def test_all_of_every_profile_are_told_at_once_each_with_its_line(self):
        text = FULL + (
            "  tiny:\n"
            "    modle: tiny/vit\n"
            "    training:\n"
            "      epochs: 0\n"
            "    seeds: []\n"
            "    name: other\n"
            "    kind: evaluate\n"
            "    sweep:\n"
            "      model: [tiny/none]\n"
            "      adapter.rnk: null\n"
            "      task: [digits]\n"
            "  small:\n"
            "    model: tiny/convnext\n"
            "    adapter: {method: none}\n"
            "    profiles: {}\n"
            "  none:\n"
            "  'two words': {}\n"
        )
        told = [line.partition(" Known:")[0] for line in problems(text)]
        assert told == [
            "13: profile tiny: unknown key 'modle'. Did you mean 'model'?",
            "15: profile tiny: training.epochs: input should be greater than or equal to 1 (given 0)",
            "16: profile tiny: seeds: should be a list of at least one integer (given [])",
            "17: profile tiny: name cannot be changed; the profile's own is put after it",
            "18: profile tiny: kind cannot be changed; it is the same experiment, only of another size",
            "20: profile tiny: unknown model 'tiny/none'. Did you mean 'tiny/convnext'?",
            "21: profile tiny: sweep: adapter.rnk is no axis of the manifest that null could remove",
            "22: profile tiny: sweep.task cannot be changed; it is the same experiment, only of another size",
            "24: profile small: model is swept by the manifest, so this value would not be used; "
            "write sweep: {model: null} too",
            "25: profile small: a fine-tune needs adapter.method full or lora",
            "26: profile small: profiles cannot be changed; a profile holds no profiles",
            "27: profiles.none: should map keys of the manifest to what they say instead; {} changes nothing "
            "(given null)",
            "28: profiles: use letters, digits, '.', '_' and '-', the first a letter or digit, at most 32 in all "
            '(given "two words")',
        ]

    def test_those_of_the_manifest_itself_are_not_told_again_for_each_profile(self):
        text = FULL.replace("epochs: 9", "epochs: 0").replace("task: digits", "colour: red")
        assert [line.partition(" Known:")[0] for line in problems(text + TINY + "  small: {}\n")] == [
            "0: task is missing",
            "3: unknown key 'colour'.",
            "6: training.epochs: input should be greater than or equal to 1 (given 0)",
        ]

    def test_the_same_mistake_in_both_is_told_of_both(self):
        text = FULL.replace("epochs: 9", "epochs: 0") + "  tiny: {training: {epochs: 0}}\n"
        assert [line[:17] for line in problems(text)] == ["6: training.epoch", "12: profile tiny:"]

    def test_a_value_that_heals_the_manifest_under_a_profile_heals_it_there_alone(self):
        text = FULL.replace("epochs: 9", "epochs: 0") + "  tiny: {training: {epochs: 1}}\n"
        assert (
            refusal(text, "tiny")
            == problems(text)
            == ["6: training.epochs: input should be greater than or equal to 1 (given 0)"]
        )

    def test_what_only_a_profile_lacks_is_told_at_the_profile(self):
        text = TUNE.replace("model: tiny/vit\n", "sweep: {model: [tiny/vit]}\n").replace(
            "{tiny: {}}", "\n  tiny: {sweep: {model: null}}"
        )
        assert problems(text) == ["7: profile tiny: model is missing"]

    def test_values_that_go_together_only_without_the_profile_are_told_with_its_name(self):
        text = FULL + "  tiny: {power: {cap_watts: 100}}\n"
        text = text.replace("seeds:", "power: {cap_percent: 50}\nseeds:")
        assert problems(text) == ["7: profile tiny: power: give cap_watts or cap_percent, not both"]

    def test_what_could_not_be_read_is_told_once(self):
        text = FULL + "  tiny: {training: {learning_rate: .inf}, sweep: {adapter.rank: .nan}}\n"
        assert problems(text) == [
            "12: profiles.tiny.sweep.adapter.rank: .nan is not a finite number of sensible length",
            "12: profiles.tiny.training.learning_rate: .inf is not a finite number of sensible length",
        ]

    def test_profiles_are_a_mapping_and_few(self):
        assert problems(FULL.replace("profiles:", "profiles: [tiny]")) == [
            '11: profiles: should map names to what the manifest says instead (given ["tiny"])'
        ]
        many = "".join(f"  p{number}: {{}}\n" for number in range(MAX_PROFILES + 1))
        assert problems(FULL + many) == ["11: profiles: at most 16 are taken, and here are 17; remove some"]

    def test_a_name_too_long_with_its_profile_is_told_at_the_profile(self):
        fits = FULL.replace("study", "n" * 98) + "  tiny: {}\n"
        assert read(fits, "tiny").name == "n" * 98 + "-tiny"
        assert problems(fits.replace("nn", "nnn", 1)) == [
            "12: profile tiny: with the manifest's name it has more than 103 letters; shorten one"
        ]

    def test_profiles_are_no_axis_of_a_sweep(self):
        assert problems(TUNE + "sweep: {profiles: [tiny]}\n") == [
            "7: sweep: profiles cannot be swept; one is chosen with --profile"
        ]

    def test_of_a_later_version_nothing_more_is_told(self):
        assert problems(FULL.replace("version: 1", "version: 2") + "  tiny: 1\n") == [
            "1: made for a later Wattledger (manifest version 2); this one reads version 1"
        ]

    def test_a_deadline_passes_only_for_what_is_run(self):
        text = TUNE.replace("{tiny: {}}", "{tiny: {schedule: {deadline: null}}, late: {}}")
        text += "schedule: {deadline: 2001-01-01T00:00:00Z}\n"
        now_ns = 10**18
        assert parse_manifest(text, source="m.yaml", profile="tiny", now_ns=now_ns).schedule.deadline is None
        with pytest.raises(ManifestError, match=r"m\.yaml:7: schedule\.deadline: .* is in the past"):
            parse_manifest(text, source="m.yaml", now_ns=now_ns)
        with pytest.raises(ManifestError, match=r"m\.yaml:7: profile late: schedule\.deadline: .* is in the past"):
            parse_manifest(text, source="m.yaml", profile="late", now_ns=now_ns)

    def test_a_file_that_only_a_profile_names_is_looked_for_too(self, tmp_path):
        (path,) = files(tmp_path, a=TUNE.replace("{tiny: {}}", "{tiny: {accounting: {intensity: gone.csv}}}"))
        with pytest.raises(ManifestError, match=r"a\.yaml:6: profile tiny: accounting\.intensity: .*gone\.csv"):
            load_manifest(path)


class TestAbsentProfiles:
    def test_the_profiles_there_are_are_listed(self):
        text = FULL + TINY + "  small: {}\n"
        assert refusal(text, "tny") == ["11: unknown profile 'tny'. Did you mean 'tiny'? Known: small, tiny."]

    def test_a_manifest_without_any_says_how_it_may_have_it(self):
        assert refusal(TUNE.replace("profiles: {tiny: {}}\n", ""), "tiny") == [
            "0: unknown profile 'tiny'; this manifest has none; to run it under that name as it is, "
            "write profiles: {tiny: {}}"
        ]

    def test_of_several_manifests_each_must_have_it_and_all_that_do_not_are_told(self, tmp_path):
        third = TUNE.replace("name: tune", "name: third")
        last = CHECK.replace("check", "last").replace("tiny: {}", "")
        paths = files(tmp_path, a=TUNE.replace("tiny: {}", "small: {}"), b=CHECK, c=f"{third}---\n{last}")
        with pytest.raises(InputError) as caught:
            load_manifests(paths, profile="tiny")
        told = str(caught.value).replace(f"{tmp_path}/", "").splitlines()
        assert told == [
            "1 problem in a.yaml; nothing was submitted.",
            "a.yaml:6: unknown profile 'tiny'. Known: small.",
            "1 problem in c.yaml; nothing was submitted.",
            "c.yaml:13: unknown profile 'tiny'; this manifest has none; to run it under that name as it is, "
            "write profiles: {tiny: {}}",
        ]


class TestWhatAProfileMakes:
    def test_sections_are_merged_key_by_key_and_axes_replaced_or_removed(self):
        manifest = read(FULL + TINY, "tiny")
        assert (manifest.training.epochs, manifest.training.batch_size, manifest.training.max_steps) == (9, 8, 20)
        assert (manifest.adapter.method, manifest.adapter.rank) == ("lora", 16)
        assert manifest.seeds == (0,)
        assert manifest.sweep == {"model": ("tiny/vit",)}

    def test_without_one_the_manifest_is_as_written(self):
        plain = FULL.replace("profiles:\n", "")
        written, other = read(FULL + TINY), read(plain)
        jobs, others = (expand(one, accelerator_types=[], submission_id="s") for one in (written, other))
        assert jobs == others
        assert len(jobs) == 12

    def test_an_axis_it_adds_turns_fastest_and_one_it_replaces_keeps_its_place(self):
        text = FULL + "  tiny: {seeds: [0], sweep: {training.epochs: [1, 2], model: [tiny/convnext, tiny/vit]}}\n"
        assert list(read(text, "tiny").sweep) == ["model", "adapter.rank", "training.epochs"]

    def test_a_section_or_sweep_the_manifest_does_not_have_is_the_profile_s(self):
        text = TUNE.replace("{tiny: {}}", "{tiny: {inference: {requests: 7}, sweep: {adapter.rank: [2, 4]}}}")
        manifest = read(text, "tiny")
        assert read(text).inference is None
        assert manifest.inference is not None
        assert manifest.inference.requests == 7
        assert manifest.sweep == {"adapter.rank": (2, 4)}

    def test_its_jobs_are_named_after_it_and_are_none_of_the_full_run(self):
        text = FULL + "  tiny: {}\n"
        full, tiny = (expand(read(text, one), accelerator_types=[], submission_id="s") for one in (None, "tiny"))
        assert {job.name for job in full} == {"study"}
        assert {job.name for job in tiny} == {"study-tiny"}
        assert all(re.fullmatch(r"study-tiny-[0-9a-f]{8}", job.job_id) for job in tiny)
        digests = [{job.job_id.rpartition("-")[2] for job in jobs} for jobs in (full, tiny)]
        assert digests[0].isdisjoint(digests[1]), "not even where nothing else differs"
        assert len(tiny) == len(full)


class TestSubmissions:
    def test_manifests_need_each_other_by_the_names_they_have_in_their_files(self, tmp_path):
        sweep = "sweep: {adapter.rank: [2, 4]}\n"
        paths = files(
            tmp_path,
            a=CHECK + "adapter: {trained_by: tune}\nneeds: [tune, old-1]\n" + sweep,
            b=TUNE + sweep,
        )
        manifests = [one.manifest for one in load_manifests(paths, profile="tiny")]
        assert [manifest.name for manifest in manifests] == ["check-tiny", "tune-tiny"]
        assert manifests[0].needs == ("tune-tiny", "old-1"), "what only the ledger knows is called as it is there"
        old = expand(read(TUNE), accelerator_types=[], submission_id="old")
        (_, tuned), (_, checked) = expand_all(manifests, accelerator_types=[], submission_id="s", known={"old-1": old})
        assert [job.adapter_job for job in checked] == [job.job_id for job in tuned]
        assert [job.adapter.trained_by for job in checked] == ["tune-tiny"] * 2
        assert [job.needs for job in checked] == [(one.job_id, old[0].job_id) for one in tuned]

    def test_a_sweep_over_trainers_names_those_under_the_profile(self, tmp_path):
        paths = files(
            tmp_path,
            a=TUNE,
            b=TUNE.replace("name: tune", "name: other"),
            c=CHECK + "sweep: {adapter.trained_by: [null, tune, other]}\n",
        )
        manifests = [one.manifest for one in load_manifests(paths, profile="tiny")]
        assert manifests[2].sweep["adapter.trained_by"] == (None, "tune-tiny", "other-tiny")
        jobs = dict(zip("abc", expand_all(manifests, accelerator_types=[], submission_id="s"), strict=True))["c"][1]
        assert [job.adapter_job is None for job in jobs] == [True, False, False]

    def test_circles_are_those_of_what_is_run(self, tmp_path):
        paths = files(tmp_path, a=TUNE.replace("{tiny: {}}", "{tiny: {needs: [check]}}"), b=CHECK + "needs: [tune]\n")
        assert len(load_manifests(paths)) == 2
        with pytest.raises(ManifestError, match=r"needs go round in a circle"):
            load_manifests(paths, profile="tiny")

    def test_two_of_one_name_have_one_name_under_a_profile(self, tmp_path):
        paths = files(tmp_path, a=TUNE, b=TUNE)
        with pytest.raises(ManifestError, match="name: tune is already the name of the manifest at"):
            load_manifests(paths, profile="tiny")


class TestSchema:
    def test_a_profile_takes_each_key_that_is_not_fixed_and_null_for_an_axis(self):
        schema = manifest_schema()["properties"]
        profile = schema["profiles"]["additionalProperties"]
        assert schema.keys() - profile["properties"].keys() == {"version", "name", "kind", "task", "profiles"}
        assert profile["additionalProperties"] is False
        axes = profile["properties"]["sweep"]["properties"]
        assert axes.keys() == schema["sweep"]["properties"].keys() - {"kind", "task"}
        assert all({"type": "null"} in axis["anyOf"] for axis in axes.values())

    def test_every_reference_is_to_a_part_of_it(self):
        schema = manifest_schema()
        references = re.findall(r'"\$ref": "(.*?)"', json.dumps(schema))
        assert len(references) > 50
        for reference in references:
            part = schema
            for key in reference.removeprefix("#/").split("/"):
                part = part[key]
            assert part["description"]


@pytest.mark.parametrize("path", sorted((ROOT / "manifests").rglob("*.yaml")), ids=lambda path: path.name)
def test_every_manifest_of_the_folder_has_a_tiny_profile(path):
    found = load_manifests([path], profile="tiny")
    assert all(one.manifest.name.endswith("-tiny") for one in found)
    expanded = expand_all([one.manifest for one in found], accelerator_types=["H100"], submission_id="s")
    assert {job.model.partition("/")[0] for _, jobs in expanded for job in jobs} == {"tiny"}
