"""Whose processor time it was: of process trees, of everyone else, and of nobody twice."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.fake_host import FakeHost
from tests.metering import lease
from workers.errors import UnmeteredError
from workers.telemetry import procfs
from workers.telemetry.usage import HostUsage


@pytest.fixture
def host(tmp_path: Path) -> FakeHost:
    return FakeHost(tmp_path / "host")


class TestTrees:
    def test_a_process_that_is_gone_has_no_time(self, host: FakeHost) -> None:
        assert procfs.tree_ticks(4711, host.proc) is None

    def test_a_tree_is_a_process_with_its_children_and_theirs(self, host: FakeHost) -> None:
        host.start(10, used=5)
        host.start(11, parent=10, used=20)
        host.start(12, parent=11, used=300)
        host.start(99, used=4000)
        assert procfs.tree_ticks(10, host.proc) == 325
        assert procfs.tree_ticks(11, host.proc) == 320

    def test_a_child_that_was_waited_for_stays_in_the_sum(self, host: FakeHost) -> None:
        host.start(10, used=5)
        host.start(11, parent=10, used=20)
        host.end(11)
        assert procfs.tree_ticks(10, host.proc) == 25

    def test_a_real_process_and_its_child_are_found(self) -> None:
        # 50 ms and more of work in a child, while its parent waits for a line.
        work = "import time\nwhile time.process_time() < 0.05: pass\nprint('done', flush=True)\ninput()"
        child = subprocess.Popen([sys.executable, "-c", work], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        assert child.stdout is not None
        assert child.stdin is not None
        with child, child.stdout, child.stdin:
            child.stdout.readline()
            alone, together = procfs.tree_ticks(child.pid), procfs.tree_ticks(os.getpid())
            child.stdin.write(b"\n")
        assert alone is not None
        assert together is not None
        assert os.sysconf("SC_CLK_TCK") * 0.04 <= alone < together

    def test_a_real_host_has_been_busy_for_some_of_its_time(self) -> None:
        ticks = procfs.host_ticks()
        assert 0 < ticks.busy < ticks.total

    def test_a_real_host_has_a_cpu(self) -> None:
        info = procfs.cpu_info()
        assert info.threads >= len(info.packages) >= 1


class TestSince:
    def test_without_a_procfs_there_is_no_usage(self, tmp_path: Path) -> None:
        with pytest.raises(UnmeteredError, match="stat cannot be read"):
            HostUsage(tmp_path)

    def test_everyone_elses_time_is_nobodys(self, host: FakeHost) -> None:
        usage = HostUsage(host.proc)
        host.pass_ticks(busy=40, idle=60)
        assert usage.since() == {None: 40}
        assert usage.since() == {None: 0}

    def test_each_lease_has_the_time_of_its_tree_since_the_last_look(self, host: FakeHost) -> None:
        usage = HostUsage(host.proc)
        host.start(10, used=1000)
        host.start(20)
        usage.attach(lease("a", [], pid=10))
        usage.attach(lease("b", [], pid=20))
        host.start(11, parent=10)
        host.work(11, 30)
        host.work(20, 5)
        host.pass_ticks(busy=7, idle=100)
        assert usage.since() == {"lease-a": 30, "lease-b": 5, None: 7}
        host.end(11)
        host.work(10, 2)
        assert usage.since() == {"lease-a": 2, "lease-b": 0, None: 0}

    def test_what_a_process_used_before_its_lease_is_not_the_leases(self, host: FakeHost) -> None:
        usage = HostUsage(host.proc)
        host.start(10)
        host.work(10, 50)
        usage.attach(lease("a", [], pid=10))
        host.work(10, 1)
        assert usage.since() == {"lease-a": 1, None: 50}

    def test_a_lease_that_left_is_one_of_the_others(self, host: FakeHost) -> None:
        usage = HostUsage(host.proc)
        host.start(10)
        usage.attach(lease("a", [], pid=10))
        usage.detach(lease("a", [], pid=10))
        usage.detach(lease("never", [], pid=11))
        host.work(10, 3)
        assert usage.since() == {None: 3}

    def test_a_process_that_died_used_nothing_any_more(self, host: FakeHost) -> None:
        usage = HostUsage(host.proc)
        host.start(10)
        usage.attach(lease("a", [], pid=10))
        host.work(10, 3)
        host.end(10)
        assert usage.since() == {"lease-a": 0, None: 3}

    def test_an_attempt_does_not_pay_for_the_agent_it_started(self, host: FakeHost) -> None:
        usage = HostUsage(host.proc, meter=11)
        host.start(10)
        host.start(11, parent=10)
        host.start(12, parent=10)
        usage.attach(lease("a", [], pid=10))
        host.work(10, 5)
        host.work(11, 70)
        host.work(12, 2)
        assert usage.since() == {"lease-a": 7, None: 70}

    def test_a_daemons_time_is_lost_and_the_next_looks_are_right_again(self, host: FakeHost) -> None:
        usage = HostUsage(host.proc)
        host.start(10)
        host.start(11, parent=10)
        host.start(12, parent=11)
        usage.attach(lease("a", [], pid=10))
        host.work(12, 30)
        assert usage.since() == {"lease-a": 30, None: 0}
        host.end(11)
        host.work(10, 4)
        assert usage.since()["lease-a"] == 0
        host.work(10, 4)
        assert usage.since() == {"lease-a": 4, None: 0}

    def test_trees_that_seem_to_use_more_than_the_host_leave_nothing(self, host: FakeHost) -> None:
        usage = HostUsage(host.proc)
        host.start(10)
        usage.attach(lease("a", [], pid=10))
        host.work(10, 12)
        host.pass_ticks(busy=-2, idle=0)
        assert usage.since() == {"lease-a": 12, None: 0}

    def test_a_look_that_failed_is_made_up_for_by_the_next(self, host: FakeHost) -> None:
        usage = HostUsage(host.proc)
        host.start(10)
        usage.attach(lease("a", [], pid=10))
        host.work(10, 12)
        stat = (host.proc / "stat").read_text()
        (host.proc / "stat").unlink()
        with pytest.raises(UnmeteredError):
            usage.since()
        (host.proc / "stat").write_text(stat)
        assert usage.since() == {"lease-a": 12, None: 0}
