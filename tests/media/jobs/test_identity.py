"""Whether another process of this machine is still there."""

from __future__ import annotations

import os
import subprocess
import sys

from media.jobs import identity


def test_this_process_is_there_and_so_is_whoever_cannot_be_seen() -> None:
    me = identity.runner("default", 2)
    assert me.host == identity.host()
    assert me.host
    assert identity.is_alive(me.process)
    assert identity.is_alive("")


def test_two_runners_of_one_process_are_two() -> None:
    assert identity.runner("default", 1).id != identity.runner("default", 1).id


def test_a_process_is_dead_from_the_moment_it_ends_and_not_only_when_its_parent_looks() -> None:
    child = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    recorded = identity.process(child.pid)
    assert recorded.startswith(f"{child.pid}:")
    assert identity.is_alive(recorded)
    child.kill()
    os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)  # it has ended, and is a zombie
    assert not identity.is_alive(recorded)
    child.communicate()
    assert not identity.is_alive(recorded)


def test_a_number_that_is_used_again_is_another_process() -> None:
    pid, _, began = identity.process(os.getpid()).partition(":")
    assert not identity.is_alive(f"{pid}:{int(began) - 1}")
