"""A real `sonoreel serve` on a loopback port, started and ended by a test."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

import httpx

LISTENING = re.compile(r"listening on (http://\S+)")
ROOT = Path(__file__).parents[2]


class ServerProcess:
    """One server process. `log` is everything it has written to stderr so far."""

    def __init__(
        self, data_dir: Path, environ: Mapping[str, str], command: Sequence[str] = ("media.cli", "serve")
    ) -> None:
        self.data_dir = data_dir
        self.log: list[str] = []
        self._url = ""
        self._listening = threading.Event()
        settings = {"SONOREEL_PORT": "0", "SONOREEL_DATA_DIR": str(data_dir), **environ}
        inherited = {name: value for name, value in os.environ.items() if not name.startswith("SONOREEL_")}
        self.process = subprocess.Popen(
            [sys.executable, "-m", *command],
            env=inherited | settings,
            cwd=ROOT,
            stderr=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            text=True,
        )
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        assert self.process.stderr is not None
        for line in self.process.stderr:
            self.log.append(line)
            if found := LISTENING.search(line):
                self._url = found[1]
                self._listening.set()
        self._listening.set()

    @property
    def url(self) -> str:
        """`http://127.0.0.1:PORT`."""
        self._listening.wait(30)
        assert self._url, "".join(self.log)
        return self._url

    @property
    def websocket_url(self) -> str:
        """`ws://127.0.0.1:PORT`."""
        return self.url.replace("http", "ws", 1)

    def wait_ready(self, seconds: float = 60.0) -> None:
        """Return once /readyz answers 200."""
        give_up = time.monotonic() + seconds
        with httpx.Client() as client:
            while client.get(f"{self.url}/readyz").status_code != 200:
                assert time.monotonic() < give_up, "".join(self.log)
                assert self.process.poll() is None, "".join(self.log)

    def worker_pids(self) -> list[int]:
        """The server's child processes."""
        children = Path(f"/proc/{self.process.pid}/task").glob("*/children")
        return [int(pid) for task in children for pid in task.read_text().split()]

    def memory(self) -> int:
        """Resident bytes of the API process."""
        pages = int(Path(f"/proc/{self.process.pid}/statm").read_text().split()[1])
        return pages * os.sysconf("SC_PAGE_SIZE")

    def terminate(self, seconds: float = 40.0) -> int:
        """SIGTERM, and wait; returns the exit status."""
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
        try:
            return self.process.wait(seconds)
        finally:
            self.process.kill()
            self.process.wait()
            self._reader.join(5)
            assert self.process.stderr is not None
            self.process.stderr.close()


@contextmanager
def running_server(data_dir: Path, **environ: str) -> Iterator[ServerProcess]:
    """A ready server with these settings; ended with SIGTERM."""
    server = ServerProcess(data_dir, environ)
    try:
        server.wait_ready()
        yield server
    finally:
        server.terminate()
