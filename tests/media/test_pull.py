"""Weights from a model hub: what is got, what is said when that is nothing, and every way it can fail."""

from __future__ import annotations

import os
import pty
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

import pytest
from typer.testing import CliRunner

from media import cli, pull
from media.pull import FILES, PullFailed, Weights, weights_of
from models.catalog import Card, Catalog, weights_present
from tests.media.fake_hub import TOKEN, FakeHub, fake_hub

SONOREEL = Path(sys.executable).with_name("sonoreel")
WHISPER = {
    "model.bin": bytes(range(256)) * 4000,
    "config.json": b"{}",
    "tokenizer.json": b"[]",
    "vocabulary.txt": b"a\nb\n",
}
REPOSITORIES = {
    "acme/whisper": WHISPER | {"README.md": b"# Whisper", "pytorch_model.bin": b"the same once more"},
    "acme/other": {"model.safetensors": b"weights", "flax_model.msgpack": b"weights", "a/b.json": b"[]"},
    "acme/private": {"weights.bin": b"weights"},
    "acme/gated": {"weights.bin": b"weights"},
    "acme/empty": {"README.md": b"nothing yet"},
}
CARDS = """
[[card]]
id = "acme-whisper"
task = "transcription"
engine = "whisper"
name = "Whisper"
weights = "acme/whisper"
aliases = ["aw"]
requires = ["no_such_package"]
extra = "whisper"

[[card]]
id = "hollow"
task = "transcription"
engine = "whisper"
name = "A repository without what is needed"
weights = "acme/empty"
"""

needs_hub = pytest.mark.skipif(
    find_spec("huggingface_hub") is None, reason="huggingface_hub is not installed: pip install 'sonoreel[whisper]'"
)


@pytest.fixture(autouse=True)
def _settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in os.environ if name.startswith(("SONOREEL_", "HF_"))]:
        monkeypatch.delenv(name)
    (tmp_path / "cards").mkdir()
    (tmp_path / "cards" / "cards.toml").write_text(CARDS)
    monkeypatch.setenv("SONOREEL_MODELS_DIR", str(tmp_path / "cards"))
    monkeypatch.setenv("HF_HOME", str(tmp_path / "hub"))
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeHub]:
    closed = {name: frozenset({f"acme/{name}"}) for name in ("private", "gated", "silent")}
    with fake_hub(REPOSITORIES, **closed) as hub:
        monkeypatch.setenv("HF_ENDPOINT", hub.url)
        yield hub


def sonoreel(*arguments: str, **environ: str) -> subprocess.CompletedProcess[str]:
    """In a process of its own: the hub's client reads its environment once."""
    return subprocess.run(
        [SONOREEL, "models", "pull", *arguments], capture_output=True, text=True, check=False, env=os.environ | environ
    )


def assert_refused(ended: subprocess.CompletedProcess[str], *reasons: str, code: int = 1) -> None:
    assert (ended.returncode, ended.stdout) == (code, "")
    assert ended.stderr.startswith("sonoreel: ")
    assert ended.stderr.count("\n") == 1, ended.stderr
    for reason in reasons:
        assert reason in ended.stderr


def folder(output: str) -> dict[str, bytes]:
    """What lies in the folder that a pull has named."""
    found = Path(output.strip().rpartition(" ")[2])
    return {str(path.relative_to(found)): path.read_bytes() for path in found.rglob("*") if path.is_file()}


def engines_find(id: str, *files: str) -> dict[str, bytes]:
    """The weights of a card as a worker looks for them, which never asks the hub."""
    source = f"""if True:
        from pathlib import Path
        from models.catalog import Catalog
        from models.torch_runtime import weights_directory
        print(weights_directory(Catalog.load(Path("cards")).describe({id!r}), *{files!r}))"""
    ended = subprocess.run([sys.executable, "-c", source], capture_output=True, text=True, check=True)
    return folder(ended.stdout)


# ---------------------------------------------------------------------- without the hub


def test_an_embedded_model_has_nothing_to_pull() -> None:
    result = CliRunner().invoke(cli.app, ["models", "pull", "espeak"])
    assert (result.exit_code, result.stderr) == (0, "")
    assert "nothing to pull" in result.stdout


def test_a_name_that_is_no_models_and_no_hubs_is_refused() -> None:
    result = CliRunner().invoke(cli.app, ["models", "pull", "pocketsphynx"])
    assert (result.exit_code, result.stdout) == (2, "")
    assert "Did you mean pocketsphinx?" in result.stderr


def test_without_the_hubs_package_it_says_how_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pull, "find_spec", lambda name: None)
    result = CliRunner().invoke(cli.app, ["models", "pull", "aw"])
    assert (result.exit_code, result.stdout) == (1, "")
    assert "pip install 'sonoreel[whisper]'" in result.stderr
    result = CliRunner().invoke(cli.app, ["models", "pull", "acme/other"])
    assert result.exit_code == 1
    assert "pip install huggingface_hub" in result.stderr


def test_what_a_card_needs_from_the_hub(tmp_path: Path) -> None:
    def card(**fields: object) -> Card:
        return Card(id="x", task="transcription", name="X", **{"engine": "whisper"} | fields)  # type: ignore[arg-type]

    assert weights_of(card()) is None
    assert weights_of(card(weights=str(tmp_path))) is None
    with pytest.raises(PullFailed, match="is not there"):
        weights_of(card(weights=str(tmp_path / "gone")))
    assert weights_of(card(weights="a/b", extra="whisper")) == Weights("a/b", FILES["whisper"], "whisper")
    assert weights_of(card(weights="a/b", files=("*.onnx",))) == Weights("a/b", ("*.onnx",))
    assert weights_of(card(weights="a/b", engine="elsewhere.engine")) == Weights("a/b")


# ---------------------------------------------------------------------- with it


@needs_hub
def test_a_card_gets_the_files_that_its_engine_reads_once(hub: FakeHub) -> None:
    first = sonoreel("aw")
    assert first.returncode == 0, first.stderr
    assert folder(first.stdout) == WHISPER
    assert sorted(hub.served) == sorted(WHISPER)
    # The weights are not all that a card may lack.
    assert first.stderr.count("\n") == 1
    assert "pip install 'sonoreel[whisper]'" in first.stderr
    card = Catalog.load(Path("cards")).describe("aw")
    assert weights_present(card)

    assert engines_find("aw", "model.bin") == folder(first.stdout)

    again = sonoreel("acme-whisper")
    assert again.returncode == 0
    assert "already here" in again.stdout
    assert folder(again.stdout) == WHISPER
    unreachable = sonoreel("aw", HF_HUB_OFFLINE="1")
    assert unreachable.returncode == 0
    assert "already here" in unreachable.stdout
    assert sorted(hub.served) == sorted(WHISPER)


@needs_hub
def test_any_id_of_the_hub_gets_all_but_other_frameworks_copies(hub: FakeHub) -> None:
    ended = sonoreel("acme/other")
    assert (ended.returncode, ended.stderr) == (0, "")
    assert folder(ended.stdout) == {"model.safetensors": b"weights", "a/b.json": b"[]"}


@needs_hub
def test_a_token_opens_what_is_private(hub: FakeHub) -> None:
    assert_refused(sonoreel("acme/private"), "acme/private", hub.url, "HF_TOKEN")
    assert sonoreel("acme/private", HF_TOKEN=TOKEN).returncode == 0
    assert_refused(sonoreel("acme/gated"), "terms", f"{hub.url}/acme/gated", "HF_TOKEN")
    assert sonoreel("acme/gated", SONOREEL_HF_TOKEN=TOKEN).returncode == 0


@needs_hub
def test_what_is_not_there_is_one_line(hub: FakeHub) -> None:
    assert_refused(sonoreel("acme/unknown"), "there is no model acme/unknown", hub.url)
    assert_refused(sonoreel("hollow"), "acme/empty has none of the files model.bin")
    assert_refused(sonoreel("a b/c"), "'a b/c' is no id")


@needs_hub
@pytest.mark.parametrize("way", ["forbidden", "no answer", "nobody there"])
def test_out_of_reach_of_the_hub_it_fails_at_once(hub: FakeHub, way: str) -> None:
    if way == "forbidden":
        assert_refused(sonoreel("aw", HF_HUB_OFFLINE="1"), "acme/whisper", "HF_HUB_OFFLINE")
    elif way == "no answer":
        assert_refused(sonoreel("acme/silent"), "acme/silent", hub.url)
    else:
        with socket.create_server(("127.0.0.1", 0)) as closing:
            port = closing.getsockname()[1]
        endpoint = f"http://127.0.0.1:{port}"
        assert_refused(sonoreel("aw", HF_ENDPOINT=endpoint), "acme/whisper", endpoint)


@needs_hub
def test_an_interrupted_pull_ends_at_once_and_is_taken_up_again(hub: FakeHub) -> None:
    hub.going_on.clear()
    with subprocess.Popen(
        [SONOREEL, "models", "pull", "aw"], stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as pulling:
        assert hub.half_way.wait(30)
        pulling.send_signal(signal.SIGINT)
        assert pulling.wait(5) == 130
        assert pulling.stderr is not None
        assert b"Traceback" not in pulling.stderr.read()
    card = Catalog.load(Path("cards")).describe("aw")
    assert not weights_present(card)
    hub.going_on.set()
    ended = sonoreel("aw")
    assert ended.returncode == 0
    assert "pulled into" in ended.stdout
    assert folder(ended.stdout) == WHISPER
    assert weights_present(card)


@needs_hub
def test_a_terminal_sees_how_far_it_is(hub: FakeHub) -> None:
    master, terminal = pty.openpty()
    with open(terminal, "wb") as error:
        ended = subprocess.run([SONOREEL, "models", "pull", "aw"], stdout=subprocess.PIPE, stderr=error, check=False)
        shown = os.read(master, 65_536)
    os.close(master)
    assert ended.returncode == 0
    assert b"acme/whisper" in shown
    size = sum(map(len, WHISPER.values())) / 1e6
    assert f"{size:.1f}/{size:.1f} MB".encode() in shown
    assert b"MB" not in ended.stdout
