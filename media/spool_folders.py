"""Each process's own folder for files that live as long as a request; what a killed one left goes at the next start."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

from media.jobs.identity import is_alive, process


def spool_folder(data_dir: Path) -> Path:
    """This process's folder; it is made by whoever puts something in it."""
    return data_dir / "spool" / (process(os.getpid()) or str(os.getpid())).replace(":", "-")


def sweep_spools(data_dir: Path) -> None:
    """Delete the folders of processes of this machine that are gone. Blocks."""
    for folder in (data_dir / "spool").glob("*-*"):
        if not is_alive(folder.name.replace("-", ":")):
            shutil.rmtree(folder, ignore_errors=True)
