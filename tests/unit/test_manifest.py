"""A manifest is checked whole before anything is submitted, and says what it means wherever it is expanded."""

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

from orchestrator.manifest import (
    ACCELERATOR_TYPES,
    Manifest,
    deadline_ns,
    expand,
    files_of,
    load_manifest,
    manifest_schema,
    parse_manifest,
)
from orchestrator.manifest.document import MAX_BYTES, MAX_NODES
from orchestrator.manifest.expand import short_ids
from orchestrator.manifest.model import SWEEPABLE
from workers.contract import DeepSpeed, Inference, JobSpec
from workers.errors import InputError, ManifestError
from workers.tasks import TASKS
from workers.training.models import MODELS

ROOT = Path(__file__).resolve().parents[2]
GOOD = "version: 1\nname: try\ntask: digits\nmodel: tiny/vit\nadapter: {method: full}\n"
"""Five lines; what a test adds starts on line 6."""


def problems(text):
    """The problems of a manifest, each as ``line: sentence``."""
    with pytest.raises(ManifestError) as caught:
        parse_manifest(text, source="m.yaml")
    return [f"{line}: {sentence}" for line, sentence in caught.value.problems]


def jobs_of(text):
    """The jobs of a manifest that is fine."""
    return expand(parse_manifest(text, source="m.yaml"), accelerator_types=[], submission_id="s")


class TestEveryProblemAtOnce:
    def test_a_manifest_of_many_mistakes_is_told_all_of_them_each_with_its_line(self):
        text = """\
version: 0
name: my run
kind: finetune
task: digit
modle: tiny/vit
budget: {energy_kwh: 1, on_exceed: stop}
training:
  epochs: 0
  epochs: 4
  batchsize: 64
  learning_rate: .inf
resources:
  gpus: 2.5
  accelerators: [H100, H1000]
schedule: {deadline: 18:00, priority: high}
seeds: [1, 1]
quantization: 5bit
sweep:
  training.epochs:
    - 1
    - two
  seeds: [1, 2]
"""
        with pytest.raises(ManifestError) as caught:
            parse_manifest(text, source="bad.yaml")
        assert str(caught.value) == (
            "19 problems in bad.yaml; nothing was submitted.\n"
            "bad.yaml: model is missing\n"
            "bad.yaml:1: version: this Wattledger reads version 1; write version: 1 (given 0)\n"
            "bad.yaml:2: name: use letters, digits, '.', '_' and '-', the first a letter or digit, "
            'at most 103 in all (given "my run")\n'
            "bad.yaml:3: a fine-tune needs adapter.method full or lora\n"
            f"bad.yaml:4: unknown task 'digit'. Did you mean 'digits'? Known: {', '.join(sorted(TASKS))}.\n"
            "bad.yaml:5: unknown key 'modle'. Did you mean 'model'? Known: accounting, adapter, budget, dataset, "
            "evaluation, inference, kind, model, name, needs, power, profiles, quantization, resources, retry, "
            "schedule, seeds, sweep, task, training, trust, version.\n"
            "bad.yaml:6: budget.on_exceed stop comes with power caps and is not supported by this version; write warn\n"
            "bad.yaml:8: training.epochs: input should be greater than or equal to 1 (given 0)\n"
            "bad.yaml:9: training: duplicate key 'epochs'; it is already on line 8\n"
            "bad.yaml:10: training: unknown key 'batchsize'. Did you mean 'batch_size'? "
            "Known: batch_size, bf16, checkpoint_steps, deepspeed, early_stopping_patience, epochs, eval_steps, "
            "gradient_accumulation_steps, gradient_checkpointing, learning_rate, max_steps, weight_decay.\n"
            "bad.yaml:11: training.learning_rate: .inf is not a finite number of sensible length\n"
            "bad.yaml:13: resources.gpus: should be 0, a part of one GPU (0.5), or a whole number (given 2.5)\n"
            "bad.yaml:14: unknown accelerator type 'H1000'. Did you mean 'H100'? Known: A100-40GB, A100-80GB, A10G, "
            "A40, H100, H200, K80, L4, L40S, P100, RTX-3070, RTX-3090, RTX-4090, T4, V100.\n"
            "bad.yaml:15: schedule.deadline: write it with its offset from UTC, as 2026-12-01T18:00:00Z "
            '(given "18:00")\n'
            'bad.yaml:15: schedule.priority: input should be a valid integer (given "high")\n'
            "bad.yaml:16: seeds: 1 is given twice; remove one\n"
            "bad.yaml:17: quantization: input should be 'none', '8bit' or '4bit' (given \"5bit\")\n"
            'bad.yaml:21: training.epochs: input should be a valid integer (given "two")\n'
            "bad.yaml:22: sweep: seeds cannot be swept; list them under the key seeds"
        )

    def test_a_file_that_is_all_problems_is_told_the_first_hundred_and_how_many_more(self):
        found = problems(GOOD + "".join(f"key{number}: 1\n" for number in range(150)))
        assert len(found) == 101
        assert found[0] == "0: and 50 problems more, which are not listed"
        assert found[-1].startswith("105: unknown key 'key99'.")


class TestWhatIsNotYaml:
    @pytest.mark.parametrize(
        ("text", "problem"),
        [
            ("", "0: empty; a manifest has at least version, name, task and model"),
            ("# nothing but a comment\n", "0: empty; a manifest has at least version, name, task and model"),
            ("quickstart", '1: a manifest maps keys to values, at least version, name, task and model (given "quickst'),
            ("- version: 1", "1: a manifest maps keys to values, at least version, name, task and model (given "),
            ("name: a\ntask: [1", "2: not YAML: expected ',' or ']', but got '<stream end>'"),
            ("name:\n\ttask: 1", "2: not YAML: found character '\\t' that cannot start any token; indent with spaces"),
            ("name: a: b", "1: not YAML: mapping values are not allowed here; put text that holds ': ' in quotes"),
            ("name: a\n task: b", "2: not YAML: mapping values are not allowed here; put text that holds"),
            ("a: 1\n- b", "2: not YAML: expected <block end>, but found '-'; check the indentation of this line"),
            ("name: a\n---\nname: b", "2: not YAML: expected a single document in the stream, but found another docum"),
            ("name: a\ntask: \x00", "2: not YAML: character '\\x00' is not allowed; remove it"),
        ],
    )
    def test_it_is_refused_with_the_line_where_reading_stopped(self, text, problem):
        found = problems(text)
        assert len(found) == 1
        assert found[0].replace(" while scanning for the next token", "").startswith(problem)

    @pytest.mark.parametrize(
        ("text", "problem"),
        [
            ("a: &a [x]\nb: [*a, *a]\n", "1: anchors (&) and aliases (*) are not read in a manifest; write the value"),
            ("a: &a\n  b: *a\n", "1: anchors (&) and aliases (*) are not read in a manifest; write the value out"),
            ("[" * 100_000, "1: nested deeper than 32 levels; flatten it"),
            ("- " * 100_000, "1: nested deeper than 32 levels; flatten it"),
            ("[" + "1," * MAX_NODES + "]", f"1: more than {MAX_NODES:,} keys and values; shorten it"),
            ("#" * (MAX_BYTES + 1), f"0: longer than {MAX_BYTES:,} bytes; shorten it"),
        ],
    )
    def test_a_text_built_to_exhaust_the_reader_is_refused_while_it_is_read(self, text, problem):
        found = problems(text)
        assert len(found) == 1
        assert found[0].startswith(problem)

    def test_a_key_that_utf8_cannot_hold_hides_no_other_mistake(self):
        found = problems('{"version": 1, "name": "a", "task": "digits", "model": {}, "adapter": {}, "\\ud800": 1}')
        assert any("model: input should be a valid string" in problem for problem in found)
        assert any("unknown key" in problem for problem in found)

    @pytest.mark.parametrize(
        ("value", "problem"),
        [
            ("!!python/object/apply:os.getcwd []", "tag '!!python/object/apply:os.getcwd' is not read in a manifest; "),
            ("!secret x", "tag '!secret' is not read in a manifest; remove it"),
            ("!!set {a}", "tag '!!set' is not read in a manifest; remove it"),
            (".nan", ".nan is not a finite number of sensible length"),
            ("1e999", "1e999 is not a finite number of sensible length"),
            ("9" * 5000, "9" * 57 + "... is not a finite number of sensible length"),
            ("!!int ten", "ten is not a finite number of sensible length"),
        ],
    )
    def test_a_value_that_stands_for_code_or_for_no_number_is_told_once(self, value, problem):
        found = problems(f"{GOOD}evaluation: {{max_samples: {value}}}\n")
        assert len(found) == 1
        assert found[0].startswith(f"6: evaluation.max_samples: {problem}")

    def test_a_key_must_be_text(self):
        assert problems(GOOD + "training: {? [epochs] : 1}\n") == ["6: training: a key must be plain text"]

    def test_a_key_of_a_thousand_letters_is_shown_short(self):
        assert problems(GOOD + "k" * 1000 + ": 1\n")[0].startswith(f"6: unknown key '{'k' * 57}...'. Known: ")

    def test_a_key_that_no_terminal_shows_is_escaped(self):
        assert (
            problems('"a\\ud800\\n": {b: 1, b: 2}\n' + GOOD)[0]
            == "1: a\\ud800\\n: duplicate key 'b'; it is already on line 1"
        )

    def test_text_that_cannot_be_written_to_a_file_is_refused(self):
        found = problems(GOOD + 'accounting: {region: "\\ud800"}\n')
        assert found == ["6: accounting.region: \\ud800 is not text that UTF-8 can hold"]


class TestFiles:
    def test_a_missing_file_says_so_and_what_to_give(self, tmp_path):
        with pytest.raises(InputError, match=r"gone\.yaml does not exist\. Give the path of a manifest"):
            load_manifest(tmp_path / "gone.yaml")

    def test_a_folder_is_not_a_manifest(self, tmp_path):
        with pytest.raises(InputError, match=r"is a folder\. Give the path of one manifest in it"):
            load_manifest(tmp_path)

    def test_a_path_through_a_file_cannot_be_read(self, tmp_path):
        (tmp_path / "file").write_text("")
        with pytest.raises(InputError, match=r"cannot be read: Not a directory\. Check its path and permissions"):
            load_manifest(tmp_path / "file" / "m.yaml")

    def test_a_file_that_is_not_utf_8_names_the_line(self, tmp_path):
        (tmp_path / "m.yaml").write_bytes(b"version: 1\nname: caf\xe9\n")
        with pytest.raises(InputError, match=r"m\.yaml is not UTF-8 text \(line 2\)\. Save it as UTF-8"):
            load_manifest(tmp_path / "m.yaml")

    def test_an_endless_file_is_read_no_further_than_a_manifest_goes(self):
        with pytest.raises(ManifestError, match="longer than 1,048,576 bytes"):
            load_manifest(Path("/dev/zero"))

    def test_a_byte_order_mark_and_windows_line_ends_are_no_problem(self, tmp_path):
        (tmp_path / "m.yaml").write_bytes(b"\xef\xbb\xbf" + GOOD.replace("\n", "\r\n").encode())
        assert load_manifest(tmp_path / "m.yaml") == parse_manifest(GOOD, source="m.yaml")


class TestValues:
    @pytest.mark.parametrize(
        ("added", "problem"),
        [
            ("training:\n", "6: training: needs keys of its own, some of epochs, max_steps, batch_size, "),
            ("training: [1]\n", "6: training: needs keys of its own, some of epochs, max_steps, batch_size, "),
            ("training:\n  epochs: 1.0\n", "7: training.epochs: input should be a valid integer (given 1.0)"),
            (
                "training:\n  learning_rate: fast\n",
                '7: training.learning_rate: input should be a valid number (given "',
            ),
            ("resources: {cpus: 0}\n", "6: resources.cpus: input should be greater than 0 (given 0)"),
            ("resources: {gpus: -1}\n", "6: resources.gpus: should be 0, a part of one GPU (0.5), or a whole number"),
            ("resources: {gpus: yes}\n", '6: resources.gpus: should be a number of GPUs (given "yes")'),
            ("resources: {gpus: true}\n", "6: resources.gpus: should be a number of GPUs (given true)"),
            ("resources: {gpus: 0.5, nodes: 2}\n", "6: resources.gpus 0.5 on 2 nodes: a job of several nodes holds"),
            ("resources: {gpus: 0, accelerators: each}\n", "6: resources.accelerators chooses among types of GPU, a"),
            ("resources: {labels: [rack]}\n", "6: resources.labels: should map labels of nodes to their values (giv"),
            ("resources: {labels: {rack: 7}}\n", "6: resources.labels: the value of a label is text, so put it in q"),
            ("resources:\n  labels:\n    rack: in(a,b)\n", "8: resources.labels: the value of a label is up to 63 l"),
            ("resources: {labels: {-rack: a}}\n", "6: resources.labels: '-rack' cannot be a label; as in region or "),
            ("schedule: {deadline: 2026-02-30T00:00:00Z}\n", "6: schedule.deadline: 2026-02-30T00:00:00Z is no time"),
            ("schedule: {time_limit_s: 0}\n", "6: schedule.time_limit_s: input should be greater than 0 (given 0)"),
            ("retry: {losses: -1}\n", "6: retry.losses: input should be greater than or equal to 0 (given -1)"),
            ("adapter_job: other\n", "6: unknown key 'adapter_job'. Did you mean 'adapter'? Known: "),
            ("baseline_job: other\n", "6: unknown key 'baseline_job'. "),
            (
                "quantization: 8bit\n",
                "6: quantization 8bit cannot go with adapter.method full: set adapter.method lora",
            ),
            ("quantization: 3bit\n", "6: quantization: input should be 'none', '8bit' or '4bit' (given \"3bit\")"),
            ("needs: other\n", '6: needs: should be a list of names of manifests, jobs or runs (given "other")'),
            ("needs:\n- other\n- 3\n", "8: needs: should be the name of a manifest, a job or a run (given 3)"),
            ("needs: [other, '']\n", '6: needs: should be the name of a manifest, a job or a run (given "")'),
            ("needs: [other, other]\n", "6: needs: other is given twice; remove one"),
            ("evaluation: {baseline: shared}\nkind: evaluate\n", "6: evaluation.baseline shared is for fine-tunes, "),
            ("schedule:\n  policy: green\n", "7: schedule.policy is not supported by this version of Wattledger; rem"),
            (
                "kind: finetunes\n",
                "6: kind: input should be 'finetune', 'evaluate' or 'inference' (given \"finetunes\")",
            ),
            ("accounting: {cpu_watts: 0}\n", "6: accounting.cpu_watts: input should be greater than 0 (given 0)"),
            ("accounting: {pue: 0.9}\n", "6: accounting.pue: input should be greater than or equal to 1 (given 0.9)"),
            ("accounting: {region: no}\nseeds: [yes]\n", '7: seeds.0: input should be a valid integer (given "yes")'),
            ("seeds: []\n", "6: seeds: should be a list of at least one integer (given [])"),
            ("seeds: 3\n", "6: seeds: should be a list of at least one integer (given 3)"),
            ("seeds:\n- 0\n- true\n", "8: seeds.1: input should be a valid integer (given true)"),
            (
                "seeds: [4294967296]\n",
                "6: seeds.0: input should be less than or equal to 4294967295 (given 4294967296)",
            ),
            ("dataset: cifar\n", "6: unknown data set of task digits 'cifar'. Known: digits-rotated."),
            ("dataset: /data/digits\n", "6: unknown data set of task digits '/data/digits'. Known: digits-rotated."),
            (
                "evaluation: {encoders: {rouge1: owner/name}}\n",
                "6: evaluation.encoders: unknown key 'rouge1'. Known: bert_score, mover_score, scibert_score.",
            ),
            ("evaluation: {metric: bleu}\n", "6: unknown metric of task digits 'bleu'. Known: accuracy, f1_macro."),
            ("power: {cap_watts: 9, cap_percent: 50}\n", "6: power: give cap_watts or cap_percent, not both"),
            ("training: {eval_steps: 5}\n", "6: training.eval_steps is for early stopping; give training.early_"),
            (
                "training:\n  batch_size: 4\n  gradient_accumulation_steps: 8\n",
                "8: training.batch_size 4 cannot be split into training.gradient_accumulation_steps 8: it is",
            ),
            (
                "training:\n  bf16: true\nresources: {accelerators: [H100, T4]}\n",
                "7: training.bf16 needs a GPU that computes in bfloat16, and T4 does not; remove one of them",
            ),
            ("training: {deepspeed: 3}\n", "6: training.deepspeed: needs keys of its own, some of zero_stage, offload"),
            (
                "training:\n  deepspeed: {zero_stage: 4}\n",
                "7: training.deepspeed.zero_stage: input should be 0, 1, 2",
            ),
            (
                "training:\n  deepspeed:\n    zero_stage: 0\n    offload: optimizer\n",
                "9: training.deepspeed.offload optimizer needs zero_stage 1, 2 or 3; stage 0 splits no optimiser state",
            ),
            (
                "training:\n  deepspeed:\n    offload: all\n",
                "8: training.deepspeed.offload all needs zero_stage 3, which splits weights, not 2",
            ),
            ("trust: {pickle: true}\n", "6: trust is for models of the hub or in a folder; tiny/vit is built here, so"),
        ],
    )
    def test_one_mistake_is_one_problem_at_its_line(self, added, problem):
        found = problems(GOOD + added)
        assert len(found) == 1
        assert found[0].startswith(problem)

    def test_deepspeed_and_quantised_weights_do_not_go_together_also_where_one_is_swept(self):
        body = GOOD.replace("full", "lora") + "quantization: 4bit\n"
        said = "training.deepspeed does not go with quantization 4bit; remove one of them"
        assert problems(body + "training:\n  deepspeed: {offload: optimizer}\n") == [f"6: {said}"]
        assert problems(body + "sweep:\n  training.deepspeed.zero_stage: [2, 3]\n") == [f"8: {said}"]
        parse_manifest(body + "training: {bf16: true}\n", source="m.yaml")

    def test_settings_of_training_that_go_together_are_fine_and_reach_the_job(self):
        text = GOOD + (
            "training:\n  bf16: true\n  gradient_checkpointing: true\n  gradient_accumulation_steps: 4\n"
            "  early_stopping_patience: 2\n  eval_steps: 10\n  deepspeed: {zero_stage: 3, offload: all}\n"
        )
        (job,) = jobs_of(text)
        assert job.training.deepspeed == DeepSpeed(zero_stage=3, offload="all")
        assert JobSpec.from_json(job.to_json()) == job

    def test_the_stage_of_deepspeed_is_swept(self):
        jobs = jobs_of(GOOD + "sweep:\n  training.deepspeed.zero_stage: [0, 3]\n")
        assert [job.training.deepspeed for job in jobs] == [DeepSpeed(zero_stage=0), DeepSpeed(zero_stage=3)]

    @pytest.mark.parametrize(
        ("value", "problem"),
        [
            ("3", "resources.accelerators: should be a list of accelerator types, or each (given 3)"),
            ("H100", 'resources.accelerators: should be a list of accelerator types, or each (given "H100")'),
            ("[3]", "resources.accelerators: an accelerator type is text (given 3)"),
            ("[each]", "unknown accelerator type 'each'. Known: A100-40GB, A100-80GB, "),
        ],
    )
    def test_a_mistake_in_the_accelerators_is_not_told_once_for_each_thing_it_could_have_been(self, value, problem):
        found = problems(f"{GOOD}resources:\n  accelerators: {value}\n")
        assert len(found) == 1
        assert found[0].startswith(f"7: {problem}")

    @pytest.mark.parametrize("key", ["version", "name", "task", "model"])
    def test_what_every_manifest_needs_is_missed(self, key):
        text = re.sub(rf"^{key}: .*\n", "", GOOD, flags=re.MULTILINE)
        remedy = "; write version: 1" if key == "version" else ""
        assert problems(text) == [f"0: {key} is missing{remedy}"]

    def test_a_manifest_of_a_later_version_is_told_so_and_nothing_about_keys_that_may_mean_something_then(self):
        assert problems(GOOD.replace("version: 1", "version: 2") + "colour: green\nsweep: 3\n") == [
            "1: made for a later Wattledger (manifest version 2); this one reads version 1"
        ]

    def test_an_unknown_model_lists_the_known_ones(self):
        found = problems(GOOD.replace("tiny/vit", "tiny/vitt"))
        assert found == [
            "4: unknown model 'tiny/vitt'. Did you mean 'tiny/vit'? Known: " + ", ".join(sorted(MODELS)) + "."
        ]

    def test_a_model_of_a_family_the_task_cannot_use_comes_with_those_it_can(self):
        assert problems(GOOD.replace("tiny/vit", "tiny/bert")) == [
            "4: tiny/bert is a text-classification model, which task digits cannot use; "
            "choose one of the hub or tiny/convnext, tiny/efficientnet, tiny/mobilenet_v2, tiny/regnet, tiny/resnet, "
            "tiny/vit"
        ]

    @pytest.mark.parametrize("model", ["Qwen/Qwen2.5-0.5B", "google-t5/t5-base", "/models/mine", "./mine", "../mine"])
    def test_a_model_of_the_hub_or_in_a_folder_is_taken_at_its_word(self, model):
        text = GOOD.replace("digits", "text-to-sql").replace("tiny/vit", model)
        assert [job.model for job in jobs_of(text)] == [model]
        pattern = manifest_schema()["properties"]["model"]["anyOf"][1]["pattern"]
        assert re.search(pattern, model)

    @pytest.mark.parametrize("model", ["gpt2", "tiny/gpt", "a/b/c", "own er/name", "-x/y"])
    def test_what_is_neither_known_nor_a_name_of_the_hub_is_refused(self, model):
        assert problems(GOOD.replace("tiny/vit", model))[0].startswith(f"4: unknown model '{model}'.")

    @pytest.mark.parametrize("bits", ["8bit", "4bit"])
    def test_lora_goes_on_quantised_weights(self, bits):
        jobs = jobs_of(GOOD.replace("full", "lora") + f"quantization: {bits}\n")
        assert [job.quantization for job in jobs] == [bits]

    def test_a_fine_tune_without_an_adapter_is_told_at_the_method_it_gives(self):
        text = GOOD.replace("adapter: {method: full}", "adapter:\n  method: none")
        assert problems(text) == ["6: a fine-tune needs adapter.method full or lora"]

    @pytest.mark.parametrize("kind", ["finetune", "evaluate"])
    def test_a_task_without_a_score_is_measured_as_inference_alone(self, kind):
        text = GOOD.replace("digits", "image-generation").replace("tiny/vit", "tiny/stable-diffusion")
        assert any(
            f"task image-generation has no score, so there is nothing to {kind}: set kind: inference" in found
            for found in problems(f"{text}kind: {kind}\n")
        )

    def test_a_fine_tune_takes_no_trained_weights(self):
        text = GOOD.replace("{method: full}", "{method: full, trained_by: other}")
        assert problems(text) == [
            "5: adapter.trained_by is for kinds evaluate and inference; a fine-tune starts from the base model"
        ]

    def test_a_deadline_that_is_over_is_told_at_its_line_with_the_time(self):
        text = (
            f"{GOOD}schedule:\n  deadline: 2026-12-01T18:00:00+01:00\n"
            "sweep:\n  schedule.deadline:\n  - 2026-12-01T16:59:59Z\n  - 2026-12-01T17:00:01Z\n  - null\n"
        )
        with pytest.raises(ManifestError) as caught:
            parse_manifest(text, source="m.yaml", now_ns=1_796_144_400_000_000_000)
        past = "is in the past; it is 2026-12-01T17:00:00Z"
        assert caught.value.problems == (
            (7, f"schedule.deadline: 2026-12-01T18:00:00+01:00 {past}"),
            (10, f"schedule.deadline: 2026-12-01T16:59:59Z {past}"),
        )

    def test_a_deadline_is_exact(self):
        assert deadline_ns("2026-12-01T18:00:00+01:00") == deadline_ns("2026-12-01T17:00Z") == 1_796_144_400 * 10**9

    def test_an_evaluation_needs_no_adapter(self):
        manifest = parse_manifest(GOOD.replace("adapter: {method: full}", "kind: evaluate"), source="m.yaml")
        assert (manifest.kind, manifest.adapter.method) == ("evaluate", "none")

    def test_numbers_and_words_are_read_as_people_mean_them(self):
        added = "training: {learning_rate: 5e-3}\nresources: {cpus: 2}\naccounting: {region: NO}\nseeds: [0x10, 007]\n"
        manifest = parse_manifest(GOOD + added, source="m.yaml")
        assert manifest.training.learning_rate == 0.005
        assert manifest.resources.cpus == 2.0
        assert manifest.accounting.region == "NO"
        assert manifest.seeds == (16, 7)

    def test_every_field_of_a_job_but_its_id_and_seed_is_a_key_of_a_manifest(self):
        assert set(JobSpec.model_fields) - {"job_id", "seed", "adapter_job", "baseline_job"} == set(
            Manifest.model_fields
        ) - {
            "version",
            "seeds",
            "sweep",
            "profiles",
        }


class TestCarbon:
    @pytest.mark.parametrize(
        ("accounting", "problem"),
        [
            (
                "region: gcp:europe-west44",
                "accounting.region: unknown region 'gcp:europe-west44'. Did you mean 'gcp:europe-west4' or ",
            ),
            (
                "region: France",
                "accounting.region: unknown region 'France'. Known: ISO 3166 codes of countries (USA or",
            ),
            (
                "intensity: electricitymap",
                "unknown source of accounting.intensity 'electricitymap'. Did you mean 'electricitymaps'? Known: "
                "yearly, electricitymaps, watttime, uk, or a file that ends in .csv or .parquet.",
            ),
            ("{intensity: electricitymaps, zone: ../DE}", "accounting.zone: string should match pattern"),
            ("intensity: watttime", "intensity watttime needs accounting.zone, a region as WattTime names it"),
            ("zone: DE", "accounting.zone is not used with intensity yearly; remove it"),
            (
                "{intensity: electricitymaps, signal: marginal}",
                "accounting.signal marginal is known to intensity watttime alone; remove it",
            ),
            (
                "{intensity: uk, region: aws:us-east-1}",
                "intensity uk is of Great Britain's grid, and region aws:us-east-1 is not on it",
            ),
        ],
    )
    def test_what_cannot_be_accounted_is_told_before_anything_runs(self, accounting, problem):
        braced = accounting if accounting.startswith("{") else f"{{{accounting}}}"
        (found,) = problems(f"{GOOD}accounting: {braced}\n")
        assert found.startswith(f"6: {problem}")

    def test_a_bad_region_in_a_sweep_is_told_where_it_stands(self):
        found = problems(GOOD + "sweep:\n  accounting.region:\n    - FRA\n    - FRX\n")
        assert [line.partition(" Did")[0] for line in found] == ["9: accounting.region: unknown region 'FRX'."]

    @pytest.mark.parametrize(
        "accounting",
        [
            "region: us",
            "{region: aws:eu-west-2, intensity: uk}",
            "{region: USA, intensity: electricitymaps, zone: US-CAL-CISO}",
            "{intensity: watttime, zone: CAISO_NORTH, signal: marginal}",
        ],
    )
    def test_what_can_be_accounted_is_taken(self, accounting):
        braced = accounting if accounting.startswith("{") else f"{{{accounting}}}"
        assert parse_manifest(f"{GOOD}accounting: {braced}\n", source="m.yaml").accounting.pue is None

    def test_a_file_is_looked_for_beside_the_manifest_and_checked_line_by_line(self, tmp_path):
        (tmp_path / "grid.csv").write_text("time,g_per_kwh\n2024-01-01T12:00,1\nnever,2\n")
        (tmp_path / "m.yaml").write_text(
            GOOD
            + "accounting:\n  intensity: grid.csv\nsweep:\n  accounting.intensity:\n    - other.csv\n    - yearly\n"
        )
        with pytest.raises(ManifestError) as caught:
            load_manifest(tmp_path / "m.yaml")
        assert list(caught.value.problems) == [
            (
                7,
                "accounting.intensity: grid.csv, line 2: time '2024-01-01T12:00' has no zone; write 2024-01-01T12:00Z "
                "if it is UTC",
            ),
            (
                7,
                "accounting.intensity: grid.csv, line 3: time 'never' is neither ISO 8601 nor seconds since the epoch",
            ),
            (
                10,
                "accounting.intensity: other.csv cannot be read beside the manifest: No such file or directory; "
                "check its name",
            ),
        ]

    def test_the_files_of_a_run_are_those_its_jobs_name(self, tmp_path):
        (tmp_path / "grid.csv").write_text("time,g_per_kwh\n0,1\n")
        (tmp_path / "m.yaml").write_text(GOOD + "seeds: [0, 1]\nsweep: {accounting.intensity: [grid.csv, yearly]}\n")
        specs = expand(load_manifest(tmp_path / "m.yaml"), accelerator_types=[], submission_id="s")
        assert len(specs) == 4
        assert files_of(specs) == ("grid.csv",)


class TestSweeps:
    @pytest.mark.parametrize(
        ("axis", "problem"),
        [
            ("training.epoch: [1]", "7: sweep: unknown key 'training.epoch'. Did you mean 'training.epochs'? Known: "),
            ("training: [{}]", "7: sweep: training has keys of its own; sweep one of training.epochs, training.max_st"),
            ("training.epochs: []", "7: sweep.training.epochs: should be a list of at least one value (given [])"),
            ("training.epochs: 3", "7: sweep.training.epochs: should be a list of at least one value (given 3)"),
            ("training.epochs: [1, 2, 1]", "7: sweep.training.epochs: 1 is given twice; remove one"),
            ("resources.cpus: [1, 1.0]", "7: sweep.resources.cpus: 1 is given twice; remove one"),
            ("name: [a, b]", "7: sweep: name cannot be swept; one manifest has one name"),
            ("version: [1]", "7: sweep: version cannot be swept; one manifest has one version"),
            ("sweep: [1]", "7: sweep: sweep cannot be swept; a sweep holds no sweep"),
            ("budget.on_exceed: [cap]", "7: budget.on_exceed cap comes with power caps and is not supported by this v"),
            ("needs: [[a]]", "7: sweep: needs cannot be swept; each job needs those jobs of what the manifest needs"),
            ("needs.job: [1]", "7: sweep: unknown key 'needs.job'. Known: "),
            ("schedule.policy: [a]", "7: sweep: schedule.policy is not supported by this version of Wattledger; remov"),
            ("schedule.deadline: [1]", "7: schedule.deadline: input should be a valid string (given 1)"),
            ("schedule.deadline: [2026-02-30T00:00:00Z]", "7: schedule.deadline: 2026-02-30T00:00:00Z is no time: "),
            ("resources.gpus: [1, 1.5]", "7: resources.gpus: should be 0, a part of one GPU (0.5), or a whole number "),
            ("resources.labels: [{a: b}, {a: 1}]", "7: resources.labels: the value of a label is text, so put it in "),
            ("resources.labels.rack: [a]", "7: sweep: unknown key 'resources.labels.rack'. Did you mean 'resources.l"),
            ("adapter.trained_by: [null, other]", "7: adapter.trained_by is for kinds evaluate and inference; a fine-"),
            ("task: [digits, null]", "7: task: a job needs one (given null)"),
            ("dataset: [null, cifar]", "7: unknown data set of task digits 'cifar'. Known: digits-rotated."),
            ("adapter.method: [lora, none]", "7: a fine-tune needs adapter.method full or lora"),
            ("resources.accelerators: [each, [L5]]", "7: unknown accelerator type 'L5'. Known: A100-40GB, "),
        ],
    )
    def test_one_mistake_is_one_problem_at_its_line(self, axis, problem):
        found = problems(f"{GOOD}sweep:\n  {axis}\n")
        assert len(found) == 1
        assert found[0].startswith(problem)

    def test_a_bad_value_is_told_at_its_own_line_in_the_list(self):
        found = problems(f"{GOOD}sweep:\n  resources.accelerators:\n  - each\n  - [H100,\n     L5]\n  - T4\n")
        assert [problem.split(":")[0] for problem in found] == ["10", "11"]

    @pytest.mark.parametrize("sweep", ["", "[model]", "3"])
    def test_a_sweep_must_map_paths_to_lists(self, sweep):
        found = problems(f"{GOOD}sweep: {sweep}\n")
        assert len(found) == 1
        assert found[0].startswith("6: sweep: should map dotted paths to lists of values (given ")

    def test_what_only_some_combination_breaks_is_told_once_with_the_combination(self):
        sweep = (
            "sweep:\n  kind: [evaluate, finetune]\n  adapter.method: [none, lora]\n  evaluation.batch_size: [1, 2]\n"
        )
        assert problems(GOOD + sweep) == [
            "6: a fine-tune needs adapter.method full or lora (with adapter.method none, kind finetune)"
        ]

    def test_two_caps_swept_against_each_other_are_told_once(self):
        sweep = "sweep:\n  power.cap_watts: [100, 200]\n  power.cap_percent: [50, 60]\n"
        assert problems(GOOD + sweep) == [
            "6: power: give cap_watts or cap_percent, not both (with power.cap_percent 50, power.cap_watts 100)"
        ]

    def test_a_wrong_value_is_not_told_again_for_what_follows_from_it(self):
        assert problems(GOOD + "kind: evaluat\nsweep:\n  adapter.method: [none, loraa]\n") == [
            "6: kind: input should be 'finetune', 'evaluate' or 'inference' (given \"evaluat\")",
            "8: adapter.method: input should be 'none', 'full' or 'lora' (given \"loraa\")",
        ]

    def test_more_jobs_than_the_head_could_hold_are_refused(self):
        numbers = ", ".join(str(number) for number in range(1, 401))
        assert problems(f"{GOOD}seeds: [{numbers}]\nsweep:\n  training.epochs: [{numbers}]\n") == [
            "7: the sweep and the seeds make 160,000 jobs; at most 100,000 are taken, so shorten a list"
        ]

    def test_a_swept_key_need_not_be_given_outside_the_sweep(self):
        text = GOOD.replace("model: tiny/vit\n", "") + "sweep: {model: [tiny/convnext, tiny/vit]}\n"
        jobs = expand(parse_manifest(text, source="m.yaml"), accelerator_types=[], submission_id="s")
        assert [job.model for job in jobs] == ["tiny/convnext", "tiny/vit"]


class TestExpansion:
    def test_each_without_accelerators_is_refused_with_what_to_do(self):
        manifest = parse_manifest(GOOD + "resources: {accelerators: each}\n", source="m.yaml")
        with pytest.raises(InputError) as caught:
            expand(manifest, accelerator_types=[], submission_id="s")
        assert str(caught.value) == (
            "resources.accelerators is 'each', but there is no accelerator to expand it to. "
            "Name the accelerator types in the manifest, or start a cluster with a node that has one."
        )

    def test_axes_that_come_to_the_same_job_are_refused(self):
        manifest = parse_manifest(GOOD + "sweep: {resources.accelerators: [each, [L4]]}\n", source="m.yaml")
        with pytest.raises(InputError, match="two jobs of try are the same in every field"):
            expand(manifest, accelerator_types=["L4"], submission_id="s")

    def test_more_jobs_than_the_head_could_hold_are_refused_when_each_makes_them(self):
        numbers = ", ".join(str(number) for number in range(300))
        text = f"{GOOD}seeds: [{numbers}]\nresources: {{accelerators: each}}\n"
        types = [f"type-{number}" for number in range(400)]
        with pytest.raises(InputError, match="try makes more than 100,000 jobs on 400 accelerator types"):
            expand(parse_manifest(text, source="m.yaml"), accelerator_types=types, submission_id="s")

    def test_the_first_axis_turns_slowest_and_the_seeds_fastest(self):
        text = (
            f"{GOOD}seeds: [7, 3]\nresources: {{accelerators: each}}\n"
            "sweep:\n  training.epochs: [2, 1]\n  adapter.rank: [8]\n"
        )
        jobs = expand(parse_manifest(text, source="m.yaml"), accelerator_types=["L4", "H100", "L4"], submission_id="s")
        assert [(job.training.epochs, job.resources.accelerators, job.seed) for job in jobs] == [
            (2, ("L4",), 7),
            (2, ("L4",), 3),
            (2, ("H100",), 7),
            (2, ("H100",), 3),
            (1, ("L4",), 7),
            (1, ("L4",), 3),
            (1, ("H100",), 7),
            (1, ("H100",), 3),
        ]

    def test_a_job_says_all_the_manifest_says(self):
        text = (
            f"{GOOD}dataset: digits-rotated\nresources: {{accelerators: [H100, L4], memory_gb: 2}}\n"
            "power: {cap_watts: 200}\nschedule: {priority: 3}\nretry: {failures: 2}\nseeds: [5]\n"
        )
        (job,) = expand(parse_manifest(text, source="m.yaml"), accelerator_types=["T4"], submission_id="s")
        expected = {
            "job_id": job.job_id,
            "name": "try",
            "task": "digits",
            "model": "tiny/vit",
            "dataset": "digits-rotated",
            "adapter": {"method": "full"},
            "resources": {"accelerators": ["H100", "L4"], "memory_gb": 2},
            "power": {"cap_watts": 200},
            "schedule": {"priority": 3},
            "retry": {"failures": 2},
            "seed": 5,
        }
        assert job == JobSpec.from_json(json.dumps(expected))
        assert re.fullmatch(r"try-[0-9a-f]{8}", job.job_id)

    @pytest.mark.parametrize(
        ("text", "requests"),
        [
            ("", [None]),
            ("inference: {batch_size: 4}\n", [1000]),
            ("sweep: {inference.requests: [10, 20]}\n", [10, 20]),
            ("inference: {batch_size: 4}\nsweep: {inference.requests: [10, 20]}\n", [10, 20]),
            ("sweep: {kind: [finetune, inference]}\n", [None, 1000]),
        ],
    )
    def test_a_fine_tune_measures_inference_where_its_manifest_says_so(self, text, requests):
        jobs = expand(parse_manifest(GOOD + text, source="m.yaml"), accelerator_types=[], submission_id="s")
        measured = [job.measured_inference for job in jobs]
        assert [None if one is None else one.requests for one in measured] == requests
        size = 4 if "batch_size" in text else 1
        assert {one.batch_size for one in measured if one is not None} <= {size}

    def test_ids_are_those_of_the_submission_and_of_no_other(self):
        manifest = parse_manifest(GOOD, source="m.yaml")
        one, again, other = (
            expand(manifest, accelerator_types=[], submission_id=submission)[0].job_id for submission in "aab"
        )
        assert one == again
        assert one != other

    def test_of_two_digests_that_begin_alike_the_later_takes_more_digits(self):
        assert short_ids("n", ["aaaaaaaa1111111122", "aaaaaaaa2222222233"]) == ["n-aaaaaaaa", "n-aaaaaaaa22222222"]

    def test_a_name_of_full_length_makes_ids_a_ledger_takes(self):
        text = GOOD.replace("name: try", "name: " + "n" * 103)
        (job,) = expand(parse_manifest(text, source="m.yaml"), accelerator_types=[], submission_id="s")
        assert JobSpec.from_json(job.to_json()) == job

    def test_ids_do_not_depend_on_the_order_of_hashes(self):
        program = (
            "from orchestrator.manifest import *\n"
            "from pathlib import Path\n"
            "jobs = expand(load_manifest(Path('manifests/quickstart.yaml')), accelerator_types=['H100'],"
            " submission_id='s')\n"
            "print([job.job_id for job in jobs])"
        )
        outputs = {
            subprocess.run(
                [sys.executable, "-c", program],
                cwd=ROOT,
                env={"PYTHONHASHSEED": seed},
                capture_output=True,
                check=True,
                timeout=60,
            ).stdout
            for seed in ("0", "1")
        }
        assert len(outputs) == 1


class TestQuickstart:
    def test_it_makes_a_job_for_each_model_accelerator_and_seed(self):
        manifest = load_manifest(ROOT / "manifests" / "quickstart.yaml")
        jobs = expand(manifest, accelerator_types=["H100", "L4"], submission_id="s")
        assert len(jobs) == 8
        assert {job.adapter.method for job in jobs} == {"lora"}
        assert {(job.accounting.region, job.accounting.pue) for job in jobs} == {("USA", 1.56)}

    def test_it_leaves_no_figure_out_that_a_manifest_can_ask_for(self):
        (job, *_) = expand(
            load_manifest(ROOT / "manifests" / "quickstart.yaml"), accelerator_types=["H100"], submission_id="s"
        )
        assert (job.kind, job.measured_inference) == ("finetune", Inference(requests=100, batch_size=1))
        # 280 W of 64 cores, and 0.3725 W of each GB, as its comments say.
        assert (job.accounting.cpu_watts, job.accounting.dram_watts) == (round(280 / 64, 1), 0.3725)


class TestSchema:
    def test_it_is_a_schema_of_the_2020_draft_with_a_name(self):
        schema = manifest_schema()
        assert schema["$schema"] == "https://json-schema.org/draft/2020-12/schema"
        assert schema["$id"] == "urn:wattledger:manifest:1"
        assert schema["title"] == "Wattledger manifest, version 1"
        assert json.loads(json.dumps(schema)) == schema

    def test_it_names_the_keys_that_are_read_and_no_other(self):
        schema = manifest_schema()
        assert list(schema["properties"]) == list(Manifest.model_fields)
        assert schema["additionalProperties"] is False
        assert schema["required"] == ["version", "name"]
        keys = {"priority", "preemptible", "time_limit_s", "deadline"}
        assert set(schema["properties"]["schedule"]["properties"]) == keys
        assert schema["properties"]["needs"]["items"] == {"type": "string"}
        assert list(schema["properties"]["sweep"]["properties"]) == list(SWEEPABLE)

    def test_it_knows_the_registries(self):
        properties = manifest_schema()["properties"]
        assert properties["task"]["enum"] == sorted(TASKS)
        assert properties["model"]["anyOf"][0]["enum"] == sorted(MODELS)
        listed, each = properties["resources"]["properties"]["accelerators"]["anyOf"]
        assert listed["items"]["enum"] == list(ACCELERATOR_TYPES)
        assert each == {"const": "each"}

    def test_it_offers_nothing_this_version_cannot_honour(self):
        properties = manifest_schema()["properties"]
        assert properties["resources"]["properties"]["gpus"]["anyOf"] == [
            {"type": "integer", "minimum": 0},
            {"type": "number", "minimum": 0, "maximum": 1},
        ]
        assert "needs" not in properties["sweep"]["properties"]

    def test_every_key_is_described(self):
        properties = manifest_schema()["properties"]
        described = [*properties.values()]
        for part in properties.values():
            described += part["properties"].values() if "properties" in part else []
        assert [part for part in described if not part.get("description")] == []

    def test_a_section_that_may_be_left_out_is_a_section_like_the_others(self):
        properties = manifest_schema()["properties"]
        assert properties["inference"].keys() == properties["training"].keys()
        assert set(properties["inference"]["properties"]) == set(Inference.model_fields)
        assert problems(GOOD + "inference: null\n") == [
            "6: inference: needs keys of its own, some of requests, repeats, batch_size, warmup (given null)"
        ]


def test_naming_the_manifest_loads_nothing_heavy():
    program = (
        "import sys, orchestrator.manifest, orchestrator.plan\n"
        "print(sorted({'ray', 'torch', 'transformers', 'sklearn', 'matplotlib', 'jinja2'} & set(sys.modules)))"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True, timeout=60
    )
    assert done.stdout == "[]\n"
