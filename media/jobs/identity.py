"""Which process a runner is, and whether another one of this machine is still there.

A neighbour's death is known as soon as somebody looks: nobody has to wait for its leases to end.
"""

from __future__ import annotations

import os
import socket
from pathlib import Path

from media.jobs.leases import Runner
from media.jobs.store import new_id


def host() -> str:
    """This boot of this machine, and the set of process numbers in it: containers have their own."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        numbers = os.readlink("/proc/self/ns/pid")
    except OSError:  # no Linux
        return ""
    return f"{socket.gethostname()} {boot} {numbers}"


def process(pid: int) -> str:
    """A process by number and start: numbers are used again. Empty when there is none, or when none can be seen."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return ""
    return "" if fields[0] in "ZX" else f"{pid}:{fields[19]}"


def runner(pool: str, slots: int) -> Runner:
    """A runner in this process."""
    return Runner(new_id("run"), pool, slots, host(), process(os.getpid()))


def is_alive(recorded: str) -> bool:
    """Whether the process that wrote this down is still there."""
    pid = recorded.partition(":")[0]
    return not pid.isdigit() or process(int(pid)) == recorded
