"""`sonoreel transcribe` with a scripted recogniser, for which a text file is a recording: a line of it is a second."""

from __future__ import annotations

import json
import os
import pty
import re
import select
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from media import cli

SONOREEL = Path(sys.executable).with_name("sonoreel")
CARDS = """
[[card]]
id = "hearer"
task = "transcription"
engine = "tests.fakes"
name = "Hearer"
idle_ttl = 0

[[card]]
id = "interpreter"
task = "transcription"
engine = "tests.fakes"
name = "Interpreter"
translates = true

[[card]]
id = "who"
task = "diarization"
engine = "tests.fakes"
name = "Who"
"""
TALK = "good morning\nand to you\nwell then\nyes\n"


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current one. Temporary files go to `kept`, where nothing may be left of them."""
    for name in [name for name in os.environ if name.startswith("SONOREEL_")]:
        monkeypatch.delenv(name)
    for name in ("cards", "kept", "here"):
        (tmp_path / name).mkdir()
    (tmp_path / "cards" / "cards.toml").write_text(CARDS)
    (tmp_path / "here" / "talk.txt").write_text(TALK)
    monkeypatch.setenv("SONOREEL_MODELS_DIR", str(tmp_path / "cards"))
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parents[2]))
    monkeypatch.setenv("TMPDIR", str(tmp_path / "kept"))
    monkeypatch.setattr("tempfile.tempdir", None)
    monkeypatch.chdir(tmp_path / "here")
    return tmp_path / "here"


@pytest.fixture(autouse=True)
def _nothing_kept(folder: Path) -> Iterator[None]:
    yield
    assert os.listdir(folder.parent / "kept") == []


def transcribe(*arguments: str) -> Result:
    return CliRunner().invoke(cli.app, ["transcribe", *arguments])


def said(result: Result) -> str:
    """Standard error without the frame that usage errors are drawn in."""
    return " ".join(re.sub(r"[╭╮╰╯│─]", " ", result.stderr).split())


def start(
    *arguments: str, stdin: int = subprocess.PIPE, stdout: int = subprocess.PIPE, stderr: int = subprocess.PIPE
) -> subprocess.Popen[bytes]:
    command = [str(SONOREEL), "transcribe", *arguments]
    return subprocess.Popen(command, bufsize=0, stdin=stdin, stdout=stdout, stderr=stderr)


# ---------------------------------------------------------------------- pipes


def test_a_pipe_is_written_down_while_it_is_still_open() -> None:
    with start("-") as running:
        assert running.stdin is not None
        assert running.stdout is not None
        assert running.stderr is not None
        for line in (b"good morning\n", b"and to you\n"):
            running.stdin.write(line)
            assert running.stdout.readline() == line
        running.stdin.close()
        assert running.stdout.read() == b""
        assert running.wait() == 0
        assert running.stderr.read() == b""


def test_interrupted_in_the_middle_of_a_pipe() -> None:
    with start("-", "--diarize", "--format", "text") as diarizing, start("-") as running:
        assert diarizing.stdin is not None
        assert running.stdin is not None
        assert running.stdout is not None
        assert running.stderr is not None
        diarizing.stdin.write(b"good morning\n")
        running.stdin.write(b"good morning\n")
        assert running.stdout.readline() == b"good morning\n"
        # Speakers are told at the end, so there is no text to wait for: that its engine runs must do.
        children = Path(f"/proc/{diarizing.pid}/task/{diarizing.pid}/children")
        while not children.read_text():
            assert diarizing.poll() is None
        for process in (diarizing, running):
            process.send_signal(signal.SIGINT)
            assert process.wait() == 130
        assert running.stdout.read() == b""
        assert running.stderr.read() == b""


def test_a_mistake_in_the_middle_of_a_pipe_does_not_wait_for_its_end(folder: Path) -> None:
    with start("-", "-o", "out.txt") as running:
        assert running.stdin is not None
        assert running.stderr is not None
        running.stdin.write(b"good morning\nbad\n")
        assert running.wait() == 2
        assert running.stderr.read() == b"sonoreel: FILE: That is no recording.\n"
    assert not (folder / "out.txt").exists()


def test_a_file_as_standard_input_and_a_named_pipe(folder: Path) -> None:
    with (folder / "talk.txt").open() as file, start("-", stdin=file.fileno()) as running:
        assert running.stdout is not None
        assert running.stdout.read().decode() == TALK
        assert running.wait() == 0
    os.mkfifo("fifo")
    writer = threading.Thread(target=Path("fifo").write_text, args=(TALK,))
    writer.start()
    result = transcribe("fifo")
    writer.join()
    assert (result.exit_code, result.stdout, result.stderr) == (0, TALK, "")


def test_on_one_terminal_text_and_the_bar_keep_out_of_each_others_way() -> None:
    master, terminal = pty.openpty()
    shown = b""
    with start("-", stdout=terminal, stderr=terminal) as running:
        os.close(terminal)
        assert running.stdin is not None
        running.stdin.write(b"good morning\n")
        while b"1/60 s" not in shown or b"good morning\r\n" not in shown:
            assert select.select([master], [], [], 20)[0], shown
            shown += os.read(master, 65_536)
        running.stdin.close()
        assert running.wait() == 0
    os.close(master)
    # The bar's line is erased, and the cursor at its start, when the text comes.
    assert b"\x1b[1A\x1b[2Kgood morning\r\n" in shown


def test_a_recording_does_not_come_from_a_terminal() -> None:
    master, terminal = pty.openpty()
    with start("-", stdin=terminal) as running:
        assert running.stderr is not None
        assert b"does not come from a terminal" in running.stderr.read()
        assert running.wait() == 2
    os.close(terminal)
    os.close(master)


# ---------------------------------------------------------------------- URLs


class Pages(SimpleHTTPRequestHandler):
    """Serves a folder; /away leads to another name of the same server."""

    def log_message(self, *arguments: object) -> None:
        pass

    def do_GET(self) -> None:
        if self.path == "/away":
            self.send_response(302)
            _, _, port = self.headers["host"].partition(":")
            self.send_header("location", f"http://localhost:{port}/talk.txt")
            self.end_headers()
        else:
            super().do_GET()


@pytest.fixture
def site(folder: Path) -> Iterator[str]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(Pages, directory=str(folder)))
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield f"http://127.0.0.1:{server.server_address[1]}"
    server.shutdown()
    server.server_close()
    thread.join()


def test_a_url_may_name_a_private_host_and_lead_to_no_other(site: str) -> None:
    result = transcribe(f"{site}/talk.txt")
    assert (result.exit_code, result.stdout, result.stderr) == (0, TALK, "")
    result = transcribe(f"{site}/away")
    assert (result.exit_code, result.stdout) == (2, "")
    assert "sonoreel: FILE: localhost is not a public address" in result.stderr


def test_a_url_that_brings_nothing(site: str) -> None:
    result = transcribe(f"{site}/nothing.txt")
    assert (result.exit_code, result.stdout, result.stderr) == (1, "", "sonoreel: FILE: the URL answered 404\n")
    result = transcribe("http://127.0.0.1:1/a.wav")
    assert result.exit_code == 1
    assert "could not be pulled" in result.stderr
    assert transcribe("http://[::1/a.wav").exit_code == 2


# ---------------------------------------------------------------------- formats, languages, speakers


@pytest.mark.parametrize(
    ("name", "begins"),
    [
        ("a.srt", "1\n00:00:00,000 --> "),
        ("a.VTT", "WEBVTT\n\n"),
        ("a.json", '{\n  "text": "good morning and to you'),
        ("a.txt", "good morning\nand to you\n"),
        ("a", "good morning\nand to you\n"),
    ],
)
def test_the_ending_says_the_format(folder: Path, name: str, begins: str) -> None:
    result = transcribe("talk.txt", "-o", name)
    assert (result.exit_code, result.stdout, result.stderr) == (0, "", "")
    assert (folder / name).read_text().startswith(begins)
    assert transcribe("talk.txt", "-o", name, "--format", "vtt").exit_code == 0
    assert (folder / name).read_text().startswith("WEBVTT")


def test_what_is_asked_for_reaches_the_model() -> None:
    (Path("none.txt")).touch()
    ask = partial(transcribe, "none.txt", "--prompt", "Names: Ada")
    assert ask().stdout == "transcribe  mix Names: Ada\n"
    assert ask("--channels", "split", "--language", "de").stdout == "transcribe de split Names: Ada\n"
    assert ask("--language", "auto").stdout == "transcribe  mix Names: Ada\n"
    # auto finds the model that can
    assert ask("--translate", "--language", "de").stdout == "translate de mix Names: Ada\n"
    assert ask("--task", "translate", "--model", "interpreter").stdout == "translate  mix Names: Ada\n"


def test_speakers_are_told_apart() -> None:
    result = transcribe("talk.txt", "--diarize")
    assert (result.exit_code, result.stderr) == (0, "")
    assert result.stdout == (
        "SPEAKER_00: good morning\nSPEAKER_01: and to you\nSPEAKER_00: well then\nSPEAKER_01: yes\n"
    )


@pytest.mark.parametrize("options", [("--num-speakers", "3"), ("--min-speakers", "2", "--max-speakers", "3")])
def test_what_is_known_about_the_speakers_is_used(folder: Path, options: tuple[str, ...]) -> None:
    arguments = ("--format", "diarized_json", "--known-speaker", "Ann=talk.txt", *options)
    result = transcribe("talk.txt", *arguments)
    assert (result.exit_code, result.stderr) == (0, "")
    segments = json.loads(result.stdout)["segments"]
    assert [(each["speaker"], each["text"]) for each in segments] == [
        ("Ann", "good morning"),
        ("A", "and to you"),
        ("B", "well then"),
        ("Ann", "yes"),
    ]


@pytest.mark.parametrize(
    ("arguments", "argument", "reason"),
    [
        (("none.wav",), "FILE", "does not exist"),
        ((".",), "FILE", "is a folder"),
        (("talk.txt", "--num-speakers", "99"), "--num-speakers", "50"),
        (("talk.txt", "--min-speakers", "4", "--max-speakers", "2"), "--min-speakers", "cannot be"),
        (("talk.txt", "--num-speakers", "5", "--max-speakers", "2"), "--num-speakers", "cannot be"),
        (("talk.txt", "--diarize", "--channels", "split"), "--channels", "leave --diarize out"),
        (("talk.txt", "--known-speaker", "Ann"), "--known-speaker", "NAME=CLIP"),
        (("talk.txt", "--known-speaker", "Ann=gone.wav"), "--known-speaker", "gone.wav"),
        (("talk.txt", "--diarize", "--diarization-model", "hearer"), "--diarization-model", "transcription model"),
        (("talk.txt", "--translate", "--model", "hearer"), "--model", "does not translate"),
        (("talk.txt", "--format", "ass"), "--format", "diarized_json"),
        (("talk.txt", "-o", "gone/a.srt"), "-o", "gone"),
    ],
)
def test_bad_input_names_the_argument(folder: Path, arguments: tuple[str, ...], argument: str, reason: str) -> None:
    result = transcribe(*arguments)
    assert (result.exit_code, result.stdout) == (2, "")
    assert argument in said(result)
    assert reason in said(result)
    assert os.listdir(folder) == ["talk.txt"]
