"""What a run was measured on, and how busy others keep it."""

from __future__ import annotations

import os
import platform
from importlib import metadata
from pathlib import Path

import anyio
import msgspec

PACKAGES = (
    "anyio", "av", "espeakng-loader", "httptools", "httpx", "msgspec", "numpy", "onnxruntime", "pocketsphinx",
    "sonoreel", "soxr", "starlette", "uvicorn", "uvloop", "websockets",
)  # fmt: skip


class Machine(msgspec.Struct, frozen=True):
    """`load` is the machine's load average of one minute when the run began."""

    processor: str
    cores: int
    memory_gb: float
    system: str
    python: str
    packages: dict[str, str]
    load: float


def this_machine() -> Machine:
    return Machine(
        processor=_processor(),
        cores=len(os.sched_getaffinity(0)),
        memory_gb=round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30, 1),
        system=f"{platform.system()} {platform.release()}",
        python=platform.python_version(),
        packages={name: version for name in PACKAGES if (version := _version(name))},
        load=round(os.getloadavg()[0], 2),
    )


async def busy_cores(seconds: float) -> float:
    """How many cores were in use, by whomever, over so long; 0 where there is no /proc."""
    before = _cpu_ticks()
    await anyio.sleep(seconds)
    after = _cpu_ticks()
    idle, total = after[0] - before[0], after[1] - before[1]
    return (os.cpu_count() or 1) * (1 - idle / total) if total else 0.0


def memory_of(pid: int) -> int:
    """Resident bytes of a process."""
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def cpu_seconds_of(pid: int) -> float:
    """Seconds of processor time that a process has used since it began."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def peak_memory_of(pid: int) -> int:
    """The most bytes a process has had resident since it began, or since `forget_peak`."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) * 1024
    raise ValueError(f"nothing is known of process {pid}")


def forget_peak(pid: int) -> None:
    """Measure peaks from now on."""
    Path(f"/proc/{pid}/clear_refs").write_text("5")


def _cpu_ticks() -> tuple[int, int]:
    try:
        ticks = [int(value) for value in Path("/proc/stat").read_text().split("\n", 1)[0].split()[1:9]]
    except OSError:
        return 0, 0
    return ticks[3] + ticks[4], sum(ticks)


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor()
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), platform.machine())


def _version(package: str) -> str:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return ""
