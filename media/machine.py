"""What kind of machine this is, as far as it matters to models: processor, memory, accelerators."""

from __future__ import annotations

import json
import os
import platform
import shutil
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import NamedTuple

PROBE_SECONDS = 60.0
"""Importing torch for the first time may take half a minute."""
CGROUP_LIMIT = Path("/sys/fs/cgroup/memory.max")
TORCH_PROBE = """
import json, torch
devices = [torch.cuda.get_device_properties(index) for index in range(torch.cuda.device_count())]
found = [[f"cuda:{index}", device.name, device.total_memory] for index, device in enumerate(devices)]
if torch.backends.mps.is_available():
    found.append(["mps", "Apple GPU", 0])
print(json.dumps([torch.__version__, found]))
"""


class Accelerator(NamedTuple):
    """A GPU; `memory` in bytes, 0 where it shares the machine's."""

    id: str
    name: str
    memory: int


class Torch(NamedTuple):
    """What torch says about this machine; `error` is why it says nothing."""

    version: str
    accelerators: tuple[Accelerator, ...]
    error: str = ""


def processor() -> str:
    """The processor's name."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()


def cores() -> int:
    """Processor cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def memory() -> tuple[int, int | None]:
    """Bytes of memory this process may use at most, and how many are free now where the system tells."""
    total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    free = None
    try:
        lines = Path("/proc/meminfo").read_text().splitlines()
        free = next((int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable:")), None)
        limit = CGROUP_LIMIT.read_text().strip()
    except OSError:
        return total, free
    if limit.isdecimal():
        total = min(total, int(limit))
    return total, free if free is None else min(free, total)


def torch() -> Torch | None:
    """Ask torch in a process of its own; None when it is not installed."""
    if find_spec("torch") is None:
        return None
    output, error = _asked([sys.executable, "-c", TORCH_PROBE])
    try:
        version, devices = json.loads(output.splitlines()[-1])
    except (IndexError, ValueError):
        return Torch("", (), error.strip().splitlines()[-1] if error.strip() else "it says nothing")
    return Torch(version, tuple(Accelerator(*device) for device in devices))


def nvidia_gpus() -> tuple[str, ...]:
    """The GPUs that the driver knows, whether or not any library here can use them."""
    if (program := shutil.which("nvidia-smi")) is None:
        return ()
    output, _ = _asked([program, "--query-gpu=name,memory.total", "--format=csv,noheader"])
    return tuple(line.strip() for line in output.splitlines() if line.strip())


def _asked(command: list[str]) -> tuple[str, str]:
    """What a program prints, on both of its streams; nothing of what it prints when it fails counts as output."""
    try:
        run = subprocess.run(command, capture_output=True, text=True, timeout=PROBE_SECONDS, check=False)  # noqa: S603 - fixed commands
    except subprocess.TimeoutExpired:
        return "", f"no answer within {PROBE_SECONDS:g} seconds"
    except OSError as error:
        return "", str(error)
    return run.stdout if run.returncode == 0 else "", run.stderr
