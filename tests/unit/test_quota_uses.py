"""Quotas as they stand: each counts those under it and nobody else, and what is left may be below nothing."""

from __future__ import annotations

from dataclasses import replace

import pytest

from orchestrator.lifecycle import AttemptState, JobRecord, JobState
from orchestrator.queue_view import quota_uses, uses_of
from orchestrator.quotas import Quota, QuotaScope
from tests.unit.ledger import attempt, job

RUNNING = attempt(state=AttemptState.RUNNING)


def quota(scope: QuotaScope, name: str, *, gpus: float | None = 4, queued_jobs: int | None = 2) -> Quota:
    return Quota(scope=scope, name=name, gpus=gpus, queued_jobs=queued_jobs)


def of(
    user: str | None, state: JobState = JobState.QUEUED, *, project: str | None = None, gpus: float = 1, nodes: int = 1
) -> JobRecord:
    tried = [RUNNING] if state.holds_place else []
    made = job(
        *tried, state=state, accounting={"project": project}, resources={"gpus": gpus, "nodes": nodes, "cpus": 1.0}
    )
    return replace(made, user=user)


def test_a_quota_that_was_lowered_under_its_user_has_less_than_nothing_left() -> None:
    (use,) = quota_uses([quota("user", "ada", gpus=4)], [of("ada", JobState.RUNNING, gpus=2, nodes=3)])
    assert (use.gpus, use.gpus_left) == (6.0, -2.0)


def test_without_a_limit_what_is_left_is_unknown_and_not_zero() -> None:
    (use,) = quota_uses([quota("user", "ada", gpus=None, queued_jobs=None)], [of("ada")])
    assert (use.gpus_left, use.queued_jobs_left) == (None, None)
    assert use.as_dict()["queued_jobs"] == {"quota": None, "used": 1, "left": None}


def test_a_job_of_nobody_known_is_under_no_quota() -> None:
    (use,) = quota_uses([quota("user", "*")], [of(None, JobState.RUNNING)])
    assert (use.name, use.gpus, use.queued_jobs) == ("*", 0.0, 0)
    assert uses_of(of(None), [quota("user", "*"), quota("project", "*")], [of(None)]) == ()


def test_a_quota_of_each_is_told_for_everybody_who_has_none_of_its_own() -> None:
    jobs = [of("ada", JobState.RUNNING), of("bob", JobState.STOPPING), of("bob"), of("cyd")]
    found = quota_uses([quota("user", "*"), quota("user", "ada", gpus=1)], jobs)
    assert [(use.name, use.quota.name, use.gpus, use.queued_jobs) for use in found] == [
        ("bob", "*", 1.0, 1),
        ("cyd", "*", 0.0, 1),
        ("ada", "ada", 1.0, 0),
    ]


def test_a_project_is_counted_over_its_users_and_no_other_project() -> None:
    jobs = [of("ada", JobState.RUNNING, project="moon", gpus=0.5), of("bob", project="moon"), of("bob", project="mars")]
    (use,) = quota_uses([quota("project", "moon")], jobs)
    assert (use.gpus, use.gpus_left, use.queued_jobs, use.queued_jobs_left) == (0.5, 3.5, 1, 1)


@pytest.mark.parametrize("project", ["moon", None])
def test_a_job_falls_under_its_user_and_its_project(project: str | None) -> None:
    mine = of("ada", project=project)
    found = uses_of(mine, [quota("user", "ada"), quota("project", "*"), quota("user", "bob")], [mine])
    assert [(use.quota.scope, use.name) for use in found] == [
        ("user", "ada"),
        *([("project", "moon")] if project else []),
    ]
