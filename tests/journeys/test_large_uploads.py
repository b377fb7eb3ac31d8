"""A recording of more than a gigabyte passes through the API process without staying in it."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.bench.machine import forget_peak, peak_memory_of
from tests.journeys.server_process import running_server
from tests.journeys.uploading import file, form, left_behind, raw_client, wait_for, wav_header

pytestmark = pytest.mark.journey

BLOCK = bytes(1 << 20)
BLOCKS = 1100
RATE, CHANNELS = 192_000, 8
MOST = 64_000_000


@pytest.mark.timeout(180)  # 1.1 GB, on a busy machine
def test_memory_does_not_grow_with_the_upload(tmp_path: Path) -> None:
    """Silence in eight channels at 192 kHz, made while it is sent, decoded by a real worker."""
    size = BLOCKS * len(BLOCK)
    before, after = form(("model", "pocketsphinx"), ("response_format", "verbose_json"), file(b"@@")).split(b"@@")
    head = before + wav_header(size, sample_rate=RATE, channels=CHANNELS)
    settings = {"SONOREEL_WARM": "pocketsphinx", "SONOREEL_MAX_UPLOAD_MB": "1200"}
    with running_server(tmp_path, **settings) as server:
        processes = [server.process.pid, *server.worker_pids()]
        for pid in processes:
            forget_peak(pid)
        idle = [peak_memory_of(pid) for pid in processes]
        with raw_client(server, len(head) + size + len(after)) as client:
            client.socket.settimeout(120)
            client.send(head)
            for _ in range(BLOCKS):
                client.send(BLOCK)
            client.send(after)
            answer = client.answer()
        assert answer.status == 200
        assert answer.json["duration"] == pytest.approx(size / (RATE * CHANNELS * 2), abs=0.01)
        growth = [peak_memory_of(pid) - most for pid, most in zip(processes, idle, strict=True)]
        assert max(growth) < MOST
        wait_for(lambda: not left_behind(server), "the recording is left in the spool directory")
