"""The commands as they are typed, with the embedded engines: what comes out where, and how each one ends."""

from __future__ import annotations

import json
import os
import pty
import re
import signal
import subprocess
import sys
import wave
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner, Result

from media import cli
from streaming.decode import decode, probe

SONOREEL = Path(sys.executable).with_name("sonoreel")
LONG_TEXT = "The weather is nice today. " * 2000
SCRIPTED = """
[[card]]
id = "broken"
task = "speech"
engine = "tests.fakes"
name = "Broken"
options = {load = "raise"}

[[card]]
id = "absent"
task = "transcription"
engine = "tests.fakes"
name = "Absent"
license = "MIT"
languages = ["de"]
requires = ["no_such_package"]
extra = "nothing"
"""


@pytest.fixture(autouse=True)
def _settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in os.environ if name.startswith("SONOREEL_")]:
        monkeypatch.delenv(name)
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def scripted_cards(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "cards").mkdir()
    (tmp_path / "cards" / "scripted.toml").write_text(SCRIPTED)
    monkeypatch.setenv("SONOREEL_MODELS_DIR", str(tmp_path / "cards"))


def run(*arguments: str, stdin: bytes | None = None) -> Result:
    return CliRunner().invoke(cli.app, arguments, input=stdin)


def said(result: Result) -> str:
    """Standard error without the frame that usage errors are drawn in."""
    return " ".join(re.sub(r"[╭╮╰╯│─]", " ", result.stderr).split())


def assert_one_line(text: str) -> None:
    assert text.count("\n") == 1, text
    assert text.startswith("sonoreel: ")


def test_version() -> None:
    result = run("--version")
    assert result.exit_code == 0
    assert re.fullmatch(r"sonoreel \d+\.\d+\.\d+\S*\n", result.stdout)


# ---------------------------------------------------------------------- speak


def test_speak_writes_a_wav_whose_header_tells_its_true_size(tmp_path: Path) -> None:
    result = run("speak", "Good morning.", "-o", "hello.wav")
    assert (result.exit_code, result.stdout, result.stderr) == (0, "", "")
    file = tmp_path / "hello.wav"
    content = file.read_bytes()
    assert int.from_bytes(content[4:8], "little") == len(content) - 8
    with wave.open(str(file)) as audio:
        assert (audio.getnchannels(), audio.getsampwidth(), audio.getframerate()) == (1, 2, 24_000)
        assert 0.4 < audio.getnframes() / 24_000 < 3
        samples = np.frombuffer(audio.readframes(audio.getnframes()), np.int16)
    assert len(samples) * 2 == len(content) - 44
    assert np.abs(samples).max() > 1000
    assert os.listdir(tmp_path) == ["hello.wav"]


def test_speak_speaks_raw_pcm_into_a_pipe() -> None:
    result = run("speak", "-", stdin="Grüß Gott.".encode())
    assert (result.exit_code, result.stderr) == (0, "")
    samples = np.frombuffer(result.stdout_bytes, "<i2")
    assert 0.3 < len(samples) / 24_000 < 3
    assert np.abs(samples).max() > 1000


@pytest.mark.parametrize(
    ("name", "options", "codec"),
    [("a.mp3", (), "mp3"), ("a.ogg", (), "opus"), ("a.bin", ("--format", "flac"), "flac")],
)
def test_speak_writes_what_the_name_or_the_option_says(
    tmp_path: Path, name: str, options: tuple[str, ...], codec: str
) -> None:
    assert run("speak", "Hello.", "-o", name, *options).exit_code == 0
    assert probe(tmp_path / name).codec.startswith(codec)


def test_speed_and_telephone_rate(tmp_path: Path) -> None:
    assert run("speak", "Hello there, how are you?", "-o", "slow.ulaw").exit_code == 0
    assert run("speak", "Hello there, how are you?", "-o", "fast.ulaw", "--speed", "2").exit_code == 0
    slow, fast = ((tmp_path / name).stat().st_size / 8000 for name in ("slow.ulaw", "fast.ulaw"))
    assert 1 < slow < 3
    assert 0.2 * slow < fast < 0.75 * slow


@pytest.mark.parametrize(
    ("arguments", "argument", "reason"),
    [
        (("speak", "Hi", "-o", "a.wav", "--voice", "nobody"), "--voice", "nobody"),
        (("speak", "Hi", "-o", "a.wav", "--model", "espeek"), "--model", "Did you mean espeak-ng?"),
        (("speak", "Hi", "-o", "a.wav", "--model", "pocketsphinx"), "--model", "is a transcription model"),
        (("speak", "Hi", "-o", "a.wav", "--language", "tlh-x"), "--language", "tlh-x"),
        (("speak", "Hi", "-o", "a.wav", "--speed", "9"), "--speed", "4"),
        (("speak", "Hi", "-o", "a.txt"), "-o", ".wav"),
        (("speak", "Hi", "-o", "none/a.wav"), "-o", "none"),
        (("speak", "Hi", "-o", "none/a.wav", "--format", "mp3"), "-o", "none"),
        (("speak", "  ", "-o", "a.wav"), "TEXT", "nothing to say"),
        (("transcribe", "none.wav"), "FILE", "does not exist"),
        (("transcribe", "a.toml", "--language", "de"), "--language", "English only"),
        (("transcribe", "a.toml", "--format", "sub"), "--format", "verbose_json"),
        (("transcribe", "a.toml"), "FILE", "not in an audio or video format"),
    ],
)
def test_bad_input_names_the_argument(tmp_path: Path, arguments: tuple[str, ...], argument: str, reason: str) -> None:
    (tmp_path / "a.wav").write_text("what was there before")
    (tmp_path / "a.toml").write_text("[not]\naudio = true\n")
    result = run(*arguments)
    assert result.exit_code == 2
    assert result.stdout == ""
    assert argument in said(result)
    assert reason in said(result)
    assert (tmp_path / "a.wav").read_text() == "what was there before"
    assert sorted(os.listdir(tmp_path)) == ["a.toml", "a.wav"]


def test_text_that_is_not_utf8_is_refused() -> None:
    result = run("speak", "-", stdin=b"\xff\xfe")
    assert result.exit_code == 2
    assert "not UTF-8" in said(result)


def test_speak_does_not_garble_a_terminal() -> None:
    master, terminal = pty.openpty()
    with open(master, "rb"), open(terminal, "wb") as out:
        ended = subprocess.run([SONOREEL, "speak", "Hi"], stdout=out, stderr=subprocess.PIPE, text=True, check=False)
    assert ended.returncode == 2
    assert "-o" in ended.stderr
    assert "terminal" in ended.stderr


def test_a_reader_that_has_had_enough_ends_it_quietly() -> None:
    with start("speak", LONG_TEXT) as speaking:
        assert speaking.stdout is not None
        assert speaking.stderr is not None
        assert len(speaking.stdout.read(1000)) == 1000
        speaking.stdout.close()
        assert speaking.stderr.read() == b""
        assert speaking.wait() == 0


def test_interrupted_while_nobody_reads() -> None:
    with start("speak", LONG_TEXT) as speaking:
        assert speaking.stdout is not None
        assert speaking.stderr is not None
        assert len(speaking.stdout.read(1000)) == 1000
        speaking.send_signal(signal.SIGINT)
        assert speaking.wait() == 130
        assert speaking.stderr.read() == b""


def start(*arguments: str) -> subprocess.Popen[bytes]:
    return subprocess.Popen([SONOREEL, *arguments], stdout=subprocess.PIPE, stderr=subprocess.PIPE)


# ---------------------------------------------------------------------- transcribe


def test_transcribe_prints_the_text_of_a_real_recording(shared_audio: Path) -> None:
    result = run("transcribe", str(shared_audio / "go-forward.wav"))
    assert (result.exit_code, result.stdout, result.stderr) == (0, "go forward ten meters\n", "")


def test_transcribe_writes_word_times_into_a_file(tmp_path: Path) -> None:
    assert run("speak", "Please turn on the kitchen light.", "-o", "a.flac").exit_code == 0
    result = run("transcribe", "a.flac", "--format", "verbose_json", "-o", "a.json", "--language", "auto")
    assert (result.exit_code, result.stdout, result.stderr) == (0, "", "")
    answer = json.loads((tmp_path / "a.json").read_text())
    assert "please turn on the" in answer["text"]
    assert [word["word"] for word in answer["words"]] == answer["text"].split()
    starts = [word["start"] for word in answer["words"]]
    assert starts == sorted(starts)
    assert answer["words"][-1]["end"] <= answer["duration"]
    assert answer["duration"] == pytest.approx(seconds(tmp_path / "a.flac"), abs=0.05)


def test_transcribe_shows_how_far_it_is_on_a_terminal(tmp_path: Path) -> None:
    assert run("speak", "Hello.", "-o", "spoken.wav").exit_code == 0
    master, terminal = pty.openpty()
    with open(terminal, "wb") as error:
        ended = subprocess.run(
            [SONOREEL, "transcribe", "spoken.wav"], stdout=subprocess.PIPE, stderr=error, check=False
        )
        shown = os.read(master, 65_536)
    os.close(master)
    assert ended.returncode == 0
    assert b"spoken.wav" in shown
    assert b"spoken.wav" not in ended.stdout


def test_transcribe_writes_subtitles(shared_audio: Path) -> None:
    result = run("transcribe", str(shared_audio / "go-forward.wav"), "--format", "srt")
    assert result.exit_code == 0
    assert re.fullmatch(r"1\n00:00:0\d,\d{3} --> 00:00:0\d,\d{3}\ngo forward ten meters\n\n?", result.stdout)


def seconds(file: Path) -> float:
    return sum(chunk.duration for chunk in decode(file))


# ---------------------------------------------------------------------- models, failures, bench


@pytest.mark.usefixtures("scripted_cards")
def test_models_list_tells_what_is_missing_and_how_to_get_it() -> None:
    models = {model["id"]: model for model in json.loads(run("models", "list", "--json").stdout)}
    assert models["espeak-ng"]["available"]
    assert models["pocketsphinx"]["auto"]
    assert models["pocketsphinx"]["embedded"]
    assert not models["absent"]["available"]
    assert not models["absent"]["auto"]
    assert "sonoreel[nothing]" in models["absent"]["missing"]
    rows = run("models", "list").stdout.splitlines()
    assert len(rows) == 1 + len(models)
    row = next(row for row in rows if row.startswith("absent"))
    for cell in ("transcription", "real", "sonoreel[nothing]", "de", "MIT"):
        assert cell in row


@pytest.mark.usefixtures("scripted_cards")
def test_a_model_that_does_not_load_is_one_line_and_leaves_no_file(tmp_path: Path) -> None:
    result = run("speak", "Hi", "-o", "a.wav", "--model", "broken")
    assert result.exit_code == 1
    assert_one_line(result.stderr)
    assert not (tmp_path / "a.wav").exists()


@pytest.mark.usefixtures("scripted_cards")
def test_a_model_that_is_not_installed_says_how_to_get_it(tmp_path: Path) -> None:
    (tmp_path / "a.wav").touch()
    result = run("transcribe", "a.wav", "--model", "absent")
    assert result.exit_code == 2
    assert_one_line(result.stderr)
    assert "--model: " in result.stderr
    assert "sonoreel[nothing]" in result.stderr


@pytest.mark.parametrize(
    ("name", "value"),
    [("SONOREEL_PORT", "many"), ("SONOREEL_HOST", "0.0.0.0")],  # noqa: S104 - is refused
)
def test_serve_refuses_settings_that_cannot_be(monkeypatch: pytest.MonkeyPatch, name: str, value: str) -> None:
    monkeypatch.setenv(name, value)
    result = run("serve")
    assert result.exit_code == 2
    assert_one_line(result.stderr)
    assert name in result.stderr


def test_bench_runs_that_of_the_checkout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cli, "CHECKOUT", tmp_path)
    result = run("bench")
    assert result.exit_code == 1
    assert_one_line(result.stderr)
    benchmark = tmp_path / "tests" / "bench"
    benchmark.mkdir(parents=True)
    (tmp_path / "tests" / "__init__.py").touch()
    (benchmark / "__main__.py").write_text(
        "import pathlib, sys\npathlib.Path('ran').write_text(sys.argv[1])\nsys.exit(7)"
    )
    assert run("bench", "--quick").exit_code == 7
    assert (tmp_path / "ran").read_text() == "--quick"
