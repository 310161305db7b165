"""Errors: which exit code each gives, and what their messages hold."""

import pytest

from workers.errors import (
    CapError,
    InputError,
    JobError,
    ManifestError,
    MeterError,
    UnknownNameError,
    UnmeteredError,
    UnreachableError,
    WattledgerError,
    unknown_name,
)


@pytest.mark.parametrize(
    ("error", "exit_code"),
    [
        (JobError("a job cannot go on"), 1),
        (MeterError("no counter"), 1),
        (CapError("no permission"), 1),
        (UnmeteredError("the CPU is not known", "Name it."), 1),
        (InputError("not JSON"), 2),
        (UnknownNameError("task", "digit", ["digits"]), 2),
        (ManifestError("m.yaml", [(1, "name: is missing")]), 2),
        (UnreachableError("the cluster does not answer"), 3),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, Exception) else str(value),
)
def test_each_error_ends_the_program_with_its_exit_code(error: WattledgerError, exit_code: int) -> None:
    assert error.exit_code == exit_code
    assert isinstance(error, WattledgerError)


def test_what_catches_a_meters_failure_catches_a_cap_s_too() -> None:
    assert issubclass(CapError, MeterError)


def test_energy_that_cannot_be_had_keeps_reason_and_remedy_apart_and_says_both() -> None:
    error = UnmeteredError("the CPU is not known", "Name it.")
    assert (error.reason, error.remedy) == ("the CPU is not known", "Name it.")
    assert str(error) == "The CPU is not known. Name it."


def test_an_unknown_name_that_is_near_nothing_lists_all_without_a_guess() -> None:
    assert unknown_name("task", "zzz", ["vqa", "digits"]) == "unknown task 'zzz'. Known: digits, vqa."


def test_an_unknown_name_comes_with_its_nearest_neighbour() -> None:
    error = UnknownNameError("model", "tiny/vti", ["tiny/vit", "tiny/convnext"])
    assert str(error) == "unknown model 'tiny/vti'. Did you mean 'tiny/vit'? Known: tiny/convnext, tiny/vit."
    assert (error.what, error.name, error.known) == ("model", "tiny/vti", ("tiny/convnext", "tiny/vit"))


def test_one_problem_of_a_manifest_is_not_plural() -> None:
    error = ManifestError("m.yaml", [(3, "task: is missing")])
    assert str(error) == "1 problem in m.yaml; nothing was submitted.\nm.yaml:3: task: is missing"


def test_problems_of_a_manifest_come_in_the_order_of_its_lines_and_once_each() -> None:
    error = ManifestError("m.yaml", [(9, "late"), (2, "early"), (9, "late"), (0, "nowhere")])
    assert error.problems == ((0, "nowhere"), (2, "early"), (9, "late"))
    assert str(error).splitlines() == [
        "3 problems in m.yaml; nothing was submitted.",
        "m.yaml: nowhere",
        "m.yaml:2: early",
        "m.yaml:9: late",
    ]
