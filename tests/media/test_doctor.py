"""Findings say what works, what does not and what to do about it; and the whole examination passes here."""

from __future__ import annotations

import json
import os
import socket
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import pytest
from typer.testing import CliRunner

from media import doctor, machine
from media.cli import app
from media.doctor import Finding, Requirement, examine_accelerators, examine_packages, parse_requirement
from media.self_test import SENTENCE, RoundTrip
from media.settings import Settings, SettingsError
from models.catalog import Card, Catalog
from models.errors import EngineFailed

GPU = machine.Accelerator("cuda:0", "NVIDIA H200", 150_000_000_000)


def by_name(findings: Iterator[Finding]) -> dict[str, Finding]:
    return {finding.name: finding for finding in findings}


@pytest.fixture
def settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in os.environ if name.startswith("SONOREEL_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("SONOREEL_DATA_DIR", str(tmp_path / "data"))
    monkeypatch.setenv("SONOREEL_PORT", "0")


# ---------------------------------------------------------------------- the whole of it


@pytest.mark.usefixtures("settings")
def test_this_installation_works(tmp_path: Path) -> None:
    result = CliRunner().invoke(app, ["doctor", "--json"])
    findings = [Finding(**finding) for finding in json.loads(result.stdout)]
    assert [finding for finding in findings if finding.state == "failed"] == []
    assert result.exit_code == 0
    assert {finding.section for finding in findings} == {
        "machine", "packages", "extras", "models", "server", "self-test",
    }  # fmt: skip
    heard = findings[-1].detail
    assert "please turn on the" in heard
    assert "espeak-ng" in heard
    assert "pocketsphinx" in heard
    assert os.listdir(tmp_path) == []  # looking changes nothing


@pytest.mark.usefixtures("settings")
def test_what_fails_is_shown_with_its_remedy_and_decides_the_exit_code(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        monkeypatch.setenv("SONOREEL_PORT", str(port))
        monkeypatch.setattr(doctor, "ANSWER_SECONDS", 0.05)
        result = CliRunner().invoke(app, ["doctor", "--no-self-test"])
    assert result.exit_code == 1
    lines = result.stdout.splitlines()
    failed = [index for index, line in enumerate(lines) if "FAILED" in line]
    assert len(failed) == 1
    assert str(port) in lines[failed[0]]
    assert "SONOREEL_PORT" in lines[failed[0] + 1]


def test_wrong_settings_are_a_finding() -> None:
    def refuse() -> Settings:
        raise SettingsError("SONOREEL_PORT='many': not a number")

    last = list(doctor.examine(refuse))[-1]
    assert last.state == "failed"
    assert "SONOREEL_PORT" in last.detail


# ---------------------------------------------------------------------- machine


@pytest.mark.parametrize(
    ("torch", "gpus", "state", "words"),
    [
        (None, (), "ok", ["torch is not installed", "no GPU"]),
        (None, ("NVIDIA H200, 143771 MiB",), "absent", ["torch is not installed", "NVIDIA H200"]),
        (machine.Torch("2.9.0", (GPU,)), ("NVIDIA H200",), "ok", ["NVIDIA H200", "150.0 GB", "2.9.0"]),
        (machine.Torch("2.9.0+cpu", ()), ("NVIDIA H200",), "failed", ["cannot use", "2.9.0+cpu"]),
        (machine.Torch("2.9.0+cpu", ()), (), "ok", ["runs on the processor"]),
        (machine.Torch("", (), "ImportError: libcudart.so"), (), "failed", ["libcudart.so"]),
    ],
)
def test_accelerators(torch: machine.Torch | None, gpus: tuple[str, ...], state: str, words: list[str]) -> None:
    (finding,) = examine_accelerators(torch, gpus)
    assert finding.state == state
    assert all(word in finding.detail for word in words)
    assert bool(finding.remedy) == (state != "ok")


FAKE_TORCH = """
import types
__version__ = "2.9.0"
device = types.SimpleNamespace(name="NVIDIA H200", total_memory=150_000_000_000)
cuda = types.SimpleNamespace(device_count=lambda: 1, get_device_properties=lambda index: device)
backends = types.SimpleNamespace(mps=types.SimpleNamespace(is_available=lambda: False))
print("a library that talks")
"""


@pytest.mark.parametrize(
    ("source", "answer"),
    [
        (FAKE_TORCH, machine.Torch("2.9.0", (GPU,))),
        ("raise ImportError('libcudart.so.12')", machine.Torch("", (), "ImportError: libcudart.so.12")),
    ],
)
def test_torch_is_asked_in_another_process(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, source: str, answer: machine.Torch
) -> None:
    (tmp_path / "torch.py").write_text(source)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    before = sys.modules.get("torch")  # another test may have wanted it
    assert machine.torch() == answer
    assert sys.modules.get("torch") is before


def test_gpus_are_what_the_driver_tells(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert machine.nvidia_gpus() == ()
    program = tmp_path / "nvidia-smi"
    program.write_text("#!/bin/sh\necho 'NVIDIA H200, 143771 MiB'\n")
    program.chmod(0o755)
    assert machine.nvidia_gpus() == ("NVIDIA H200, 143771 MiB",)
    program.write_text("#!/bin/sh\necho 'NVIDIA-SMI has failed'\nexit 9\n")
    assert machine.nvidia_gpus() == ()


def test_a_container_may_have_less_memory_than_its_host(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    limit = tmp_path / "memory.max"
    monkeypatch.setattr(machine, "CGROUP_LIMIT", limit)
    physical, _ = machine.memory()
    limit.write_text("max\n")
    assert machine.memory()[0] == physical
    limit.write_text("1000000\n")
    assert machine.memory() == (1_000_000, 1_000_000)


# ---------------------------------------------------------------------- packages


@pytest.mark.parametrize(
    ("line", "requirement"),
    [
        ("anyio>=4.9", Requirement("anyio", "4.9", "")),
        ("uvloop>=0.21; sys_platform != 'win32'", Requirement("uvloop", "0.21", "")),
        ("ray[serve]>=2.50; extra == 'ray'", Requirement("ray", "2.50", "ray")),
        ('torch<3,>=2.8 ; extra == "kokoro"', Requirement("torch", "2.8", "kokoro")),
        ("pyannote.audio", Requirement("pyannote.audio", "", "")),
    ],
)
def test_requirements_are_read(line: str, requirement: Requirement) -> None:
    assert parse_requirement(line) == requirement


def test_absent_and_old_packages_are_told_apart_from_extras() -> None:
    def installed(package: str) -> str:
        if package == "numpy":
            raise PackageNotFoundError(package)
        return {"rich": "13.9.9rc1", "anyio": "4.10", "faster-whisper": "1.3"}.get(package) or version(package)

    found = by_name(examine_packages(installed=installed))
    assert found["numpy"].state == "failed"
    assert found["rich"].state == "failed"
    assert "13.9.9rc1 is too old" in found["rich"].detail
    assert found["rich"].remedy
    assert found["anyio"].state == "ok"  # 4.10 is newer than 4.9
    assert found["whisper"].state == "ok"
    assert found["ray"].state == "absent"
    assert "ray" in found["ray"].remedy


def test_code_that_was_never_installed() -> None:
    (finding,) = examine_packages("sonoreel-that-is-not")
    assert finding.state == "failed"
    assert "pip install" in finding.remedy


# ---------------------------------------------------------------------- models, server, self-test


def test_an_embedded_model_must_run_and_a_real_one_may_be_missing() -> None:
    real = Card(id="real", task="speech", engine="espeak", name="Real", requires=("no_such_package",))
    embedded = Card(
        id="own", task="transcription", engine="espeak", name="Own", embedded=True, requires=("no_such_package",)
    )
    found = by_name(doctor.examine_models(Catalog([real, embedded])))
    assert found["real"].state == "absent"
    assert "no_such_package" in found["real"].detail
    assert found["own"].state == "failed"
    assert found["auto for speech"].state == "failed"
    assert found["auto for diarization"].state == "absent"


def test_a_port_is_free_or_taken_or_ours() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port: int = listener.getsockname()[1]
    assert doctor.examine_port("127.0.0.1", port).state == "ok"
    with answering(b'{"info": {"title": "Sonoreel"}}') as port:
        ours = doctor.examine_port("127.0.0.1", port)
    assert ours.state == "ok"
    assert "running" in ours.detail
    with answering(b'["something else"]') as port:
        assert doctor.examine_port("127.0.0.1", port).state == "failed"
    assert doctor.examine_port("no..host", 0).state == "failed"


@contextmanager
def answering(body: bytes) -> Iterator[int]:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: object) -> None:
            pass

    with HTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.handle_request)
        thread.start()
        yield server.server_port
        thread.join()


def test_the_data_folder_is_judged_by_what_is_there(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    assert doctor.examine_data_dir(tmp_path / "not" / "yet").state == "ok"
    blocked = doctor.examine_data_dir(tmp_path / "file" / "data")
    assert blocked.state == "failed"
    assert "SONOREEL_DATA_DIR" in blocked.remedy
    assert os.listdir(tmp_path) == ["file"]


def heard(text: str) -> RoundTrip:
    return RoundTrip("a", "b", SENTENCE, text, 1.8, 0.3, 0.4, 1.5)


def test_words_agree_in_order() -> None:
    assert heard("please turn on the kitchen light").agreement == 1
    assert heard("please turn on the pitch of light").agreement == pytest.approx(5 / 6)
    assert heard("light kitchen the on turn please").agreement == pytest.approx(1 / 6)
    assert heard("").agreement == 0


def test_the_self_test_fails_for_errors_silence_and_nonsense() -> None:
    def fail() -> RoundTrip:
        raise EngineFailed("the worker was killed")

    def hang() -> RoundTrip:
        raise TimeoutError

    assert doctor.examine_round_trip(lambda: heard("please turn on the light")).state == "ok"
    assert doctor.examine_round_trip(lambda: heard("")).state == "failed"
    assert doctor.examine_round_trip(hang).state == "failed"
    failed = doctor.examine_round_trip(fail)
    assert failed.state == "failed"
    assert failed.detail == "the worker was killed"
