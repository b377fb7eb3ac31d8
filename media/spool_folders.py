"""Each process's own folder for files that live as long as a request; what a killed one left goes at the next start."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

from media.jobs.identity import is_alive, process


def prepare_spools(data_dir: Path) -> Path:
    """This process's folder, empty; those of processes of this machine that are gone are deleted. Blocks."""
    for folder in (data_dir / "spool").glob("*-*"):
        if not is_alive(folder.name.replace("-", ":")):
            shutil.rmtree(folder, ignore_errors=True)
    folder = data_dir / "spool" / (process(os.getpid()) or str(os.getpid())).replace(":", "-")
    folder.mkdir(parents=True, exist_ok=True)
    return folder
