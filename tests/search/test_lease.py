"""Who is alive: by process on this machine, by signs of life elsewhere."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator

import optuna
import pytest

from blockforge.search.study.lease import Lease, Watch
from blockforge.search.study.storage import quiet_optuna


@pytest.fixture
def study() -> Iterator[optuna.Study]:
    with quiet_optuna():
        yield optuna.create_study()


def test_a_lease_ends_with_its_block(study: optuna.Study) -> None:
    with Lease(study) as lease:
        assert Watch(study).dead({lease.id}) == set()
    assert Watch(study).dead({lease.id, "nobody"}) == {lease.id, "nobody"}


def test_a_worker_says_that_it_is_alive(study: optuna.Study) -> None:
    with Lease(study, seconds=0.06) as lease:
        end = time.monotonic() + 20
        while Watch(study).lives()[lease.id]["beats"] < 3:
            assert time.monotonic() < end, "no sign of life"
            time.sleep(0.01)
        lease.end("enough")
    assert Watch(study).lives()[lease.id]["ended"] == "enough"


def test_the_death_of_a_process_here_is_seen_at_once(study: optuna.Study) -> None:
    with Lease(study) as lease:
        life = Watch(study).lives()[lease.id]
    process = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    stat = f"/proc/{process.pid}/stat"
    with open(stat, encoding="ascii") as file:
        began = file.read().rpartition(")")[2].split()[19]
    study.set_user_attr("worker:other", {**life, "pid": process.pid, "began": began})
    study.set_user_attr("worker:earlier", {**life, "pid": process.pid, "began": "1"})
    watch = Watch(study)
    assert watch.dead({"other", "earlier"}) == {"earlier"}  # ids of processes are used again
    process.kill()
    os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)  # dead, and not yet buried
    assert watch.dead({"other"}) == set()  # whoever started it may say how it died
    assert watch.dead({"other"}) == {"other"}
    process.communicate()
    assert Watch(study).dead({"other"}) == {"other"}


def test_the_death_of_a_process_here_is_left_to_its_parent(study: optuna.Study) -> None:
    with Lease(study, parent=os.getpid()) as lease:
        life = Watch(study).lives()[lease.id]
    dead = {**life, "pid": 1, "began": "1"}  # ids of processes are used again
    study.set_user_attr("worker:child", dead)
    study.set_user_attr("worker:orphan", {**dead, "parent": {**life["parent"], "began": "1"}})
    watch = Watch(study, seconds=0.2)
    for _ in range(3):
        assert watch.dead({"child", "orphan"}) == {"orphan"}
    time.sleep(0.25)  # its parent has had its time
    watch.dead({"child"})
    assert watch.dead({"child"}) == {"child"}


def test_a_worker_elsewhere_is_dead_when_it_has_been_silent(study: optuna.Study) -> None:
    life = {"beats": 1, "machine": "another", "pid": 1, "began": "1"}
    study.set_user_attr("worker:far", life)
    watch = Watch(study, seconds=0.2)
    assert watch.dead({"far"}) == set()
    time.sleep(0.25)
    study.set_user_attr("worker:far", {**life, "beats": 2})
    assert watch.dead({"far"}) == set()
    time.sleep(0.25)
    watch.dead({"far"})
    assert watch.dead({"far"}) == {"far"}
