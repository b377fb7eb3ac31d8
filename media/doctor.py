"""What this machine has, what would run on it, what is missing and how to get it: the findings of `sonoreel doctor`.

A finding is `failed` when something that a plain installation promises does not work, `absent` when something
optional is not there. Nothing here changes the machine, and no engine's library is loaded into this process.
"""

from __future__ import annotations

import platform
import re
import socket
import sys
import tempfile
from collections.abc import Callable, Iterator
from importlib.metadata import PackageNotFoundError, requires, version
from pathlib import Path
from typing import Literal, NamedTuple, TypeAlias, get_args

import httpx
from rich.text import Text

from media import machine
from media.local import load_catalog
from media.self_test import HEARD_ENOUGH, RoundTrip, round_trip
from media.settings import PREFIX, Settings, SettingsError
from models.catalog import Card, Catalog, CatalogError, Task
from models.errors import EngineError, UnknownModel
from streaming.encode import AudioFormat, open_encoder

State: TypeAlias = Literal["ok", "absent", "failed"]
MARKS: dict[State, tuple[str, str]] = {"ok": ("ok", "green"), "absent": ("--", "yellow"), "failed": ("FAILED", "red")}
PROMISED: tuple[Task, ...] = ("speech", "transcription")
"""Tasks that a plain installation has an embedded engine for."""
OLDEST_PYTHON = (3, 11)
ANSWER_SECONDS = 2.0
"""How long whatever has the port may take to say that it is a Sonoreel server."""
CHECKOUT = Path(__file__).parents[1]


class Finding(NamedTuple):
    """One fact. `remedy` is what to do about it: a command where there is one."""

    section: str
    name: str
    state: State
    detail: str = ""
    remedy: str = ""

    def rendered(self) -> Text:
        """For a terminal; plain text when the console has no colours."""
        mark, style = MARKS[self.state]
        text = Text.assemble(("  " + mark.ljust(7), style), self.name.ljust(24), self.detail)
        if self.remedy:
            text.append(f"\n{'':9}-> {self.remedy}", style="bold")
        return text


class Requirement(NamedTuple):
    """A package that the distribution asks for, at least in `minimum`; `extra` is empty for what it always needs."""

    package: str
    minimum: str
    extra: str


def examine(read_settings: Callable[[], Settings], *, self_test: bool = True) -> Iterator[Finding]:
    """Look at everything, the cheap first; findings come as they are made."""
    yield from examine_machine()
    yield from examine_packages()
    try:
        settings = read_settings()
        catalog = load_catalog(settings)
    except (SettingsError, CatalogError) as error:
        yield Finding("server", "settings", "failed", str(error), "correct the value it names")
        return
    yield from examine_models(catalog)
    yield examine_formats()
    yield from examine_server(settings)
    if self_test:
        yield examine_round_trip(lambda: round_trip(settings, catalog))


def examine_machine() -> Iterator[Finding]:
    """Python, system, processor, memory and accelerators."""
    fits = sys.version_info[:2] >= OLDEST_PYTHON
    oldest = ".".join(map(str, OLDEST_PYTHON))
    python = f"{platform.python_implementation()} {platform.python_version()} ({sys.executable})"
    remedy = "" if fits else f"install Python {oldest} or newer"
    yield Finding("machine", "python", "ok" if fits else "failed", python, remedy)
    yield Finding("machine", "system", "ok", platform.platform())
    yield Finding("machine", "processor", "ok", f"{machine.cores()} cores of {machine.processor()}")
    total, free = machine.memory()
    now = "" if free is None else f", {_gigabytes(free)} free"
    yield Finding("machine", "memory", "ok", f"{_gigabytes(total)}{now}")
    yield from examine_accelerators(machine.torch(), machine.nvidia_gpus())


def examine_accelerators(torch: machine.Torch | None, gpus: tuple[str, ...]) -> Iterator[Finding]:
    """GPUs, and whether torch can use them."""
    if torch is None:
        driver = f"; the driver knows {', '.join(gpus)}" if gpus else "; no GPU found"
        detail = f"torch is not installed, so models run on the processor{driver}"
        yield Finding(
            "machine", "accelerators", "absent" if gpus else "ok", detail, "pip install torch" if gpus else ""
        )
    elif torch.error:
        yield Finding(
            "machine", "accelerators", "failed", f"torch cannot be imported: {torch.error}", _reinstall("torch")
        )
    elif torch.accelerators:
        for device in torch.accelerators:
            amount = f", {_gigabytes(device.memory)}" if device.memory else ""
            yield Finding("machine", device.id, "ok", f"{device.name}{amount} (torch {torch.version})")
    elif gpus:
        detail = f"torch {torch.version} cannot use {', '.join(gpus)}"
        yield Finding("machine", "accelerators", "failed", detail, "install a torch built for the driver: pytorch.org")
    else:
        yield Finding("machine", "accelerators", "ok", f"none; torch {torch.version} runs on the processor")


def examine_packages(distribution: str = "sonoreel", installed: Callable[[str], str] = version) -> Iterator[Finding]:
    """What the distribution always needs, each; then its extras. `installed` raises PackageNotFoundError."""
    try:
        yield Finding("packages", distribution, "ok", f"{installed(distribution)} ({CHECKOUT})")
        needed = [parse_requirement(line) for line in requires(distribution) or ()]
    except PackageNotFoundError:
        yield Finding("packages", distribution, "failed", "is not installed as a package", f"pip install -e {CHECKOUT}")
        return
    for requirement in needed:
        if not requirement.extra:
            yield _package(requirement, installed)
    for extra in sorted({requirement.extra for requirement in needed} - {"", "all"}):
        absent = [one.package for one in needed if one.extra == extra and _package(one, installed).state != "ok"]
        detail = f"needs {', '.join(absent)}" if absent else "installed"
        yield Finding("extras", extra, "absent" if absent else "ok", detail, _install_extra(extra) if absent else "")


def parse_requirement(line: str) -> Requirement:
    """One `Requires-Dist` line, as far as installers write them for this project."""
    named, _, marker = line.partition(";")
    package = re.match(r"[A-Za-z0-9._-]+", named)
    minimum = re.search(r">=\s*([0-9.]+)", named)
    extra = re.search(r"extra\s*==\s*['\"]([^'\"]+)", marker)
    return Requirement(package[0] if package else line, minimum[1] if minimum else "", extra[1] if extra else "")


def examine_models(catalog: Catalog) -> Iterator[Finding]:
    """What `auto` means for each task, then every card."""
    for task in get_args(Task):
        try:
            yield Finding("models", f"auto for {task}", "ok", catalog.auto(task).id)
        except UnknownModel as error:
            state: State = "failed" if task in PROMISED else "absent"
            yield Finding("models", f"auto for {task}", state, error.message, _repair() if task in PROMISED else "")
    for card in catalog.cards:
        yield _model(card, catalog.missing(card))


def examine_formats() -> Finding:
    """Whether every audio format can be written."""
    broken = []
    for format in AudioFormat:
        try:
            open_encoder(format, 24_000).close()
        except ValueError:
            broken.append(format.value)
    if broken:
        return Finding("models", "audio formats", "failed", f"cannot write {', '.join(broken)}", _reinstall("av"))
    return Finding("models", "audio formats", "ok", " ".join(AudioFormat))


def examine_server(settings: Settings) -> Iterator[Finding]:
    """Whether `sonoreel serve` could start with these settings."""
    access = f"{len(settings.api_keys)} keys" if settings.api_keys else "no keys: answers on this machine only"
    yield Finding("server", "access", "ok", access)
    yield examine_port(settings.host, settings.port)
    yield examine_data_dir(settings.data_dir)


def examine_port(host: str, port: int) -> Finding:
    """Whether the server could listen there, or already does."""
    where = f"{host} port {port}"
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        with socket.socket(family, kind, protocol) as listener:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # as the server does
            listener.bind(address)
    except (socket.gaierror, UnicodeError):
        remedy = f"set {PREFIX}HOST to an address of this machine"
        return Finding("server", "port", "failed", f"{host} is no address", remedy)
    except OSError as error:
        if _is_ours(host, port):
            return Finding("server", "port", "ok", f"{where}: a Sonoreel server is running there")
        return Finding(
            "server", "port", "failed", f"{where}: {error.strerror}", f"sonoreel serve --port N, or set {PREFIX}PORT"
        )
    return Finding("server", "port", "ok", f"{where} is free")


def examine_data_dir(folder: Path) -> Finding:
    """Whether files can be written there. What is not there yet, the server makes: then its parent counts."""
    existing = next(parent for parent in (folder.absolute(), *folder.absolute().parents) if parent.exists())
    try:
        with tempfile.TemporaryFile(dir=existing):
            pass
    except OSError as error:
        remedy = f"make it writable, or set {PREFIX}DATA_DIR to another folder"
        return Finding("server", "data", "failed", f"{existing}: {error.strerror}", remedy)
    return Finding("server", "data", "ok", f"{folder.absolute()} is writable")


def examine_round_trip(test: Callable[[], RoundTrip]) -> Finding:
    """Speak a sentence and write it down, with the models that `auto` means."""
    try:
        result = test()
    except EngineError as error:
        return Finding("self-test", "speak, write down", "failed", error.message, _repair())
    except TimeoutError:
        return Finding("self-test", "speak, write down", "failed", "took too long", "look at the machine's load")
    times = (
        f"{result.speech_model}: {result.audio_seconds:.1f} s of speech, first audio after {result.first_audio:.2f} s, "
        f"all after {result.spoken:.2f} s; {result.transcription_model}: {result.heard:.2f} s; both loaded their engine"
    )
    if result.agreement < HEARD_ENOUGH:
        return Finding(
            "self-test",
            "speak, write down",
            "failed",
            f"said {result.said!r}, understood {result.understood!r} ({times})",
        )
    return Finding("self-test", "speak, write down", "ok", f"{result.understood!r} ({times})")


def _package(requirement: Requirement, installed: Callable[[str], str]) -> Finding:
    name, minimum = requirement.package, requirement.minimum
    try:
        found = installed(name)
    except PackageNotFoundError:
        return Finding("packages", name, "failed", "is not installed", _repair())
    if _numbers(found) < _numbers(minimum):
        return Finding("packages", name, "failed", f"{found} is too old, {minimum} is needed", _repair())
    return Finding("packages", name, "ok", found)


def _numbers(release: str) -> tuple[int, ...]:
    """Comparable; what follows the numbers (rc1, +cu128) does not decide whether a package is too old."""
    leading = re.match(r"[0-9.]*", release)
    return tuple(int(part) for part in (leading[0] if leading else "").split(".") if part)


def _model(card: Card, missing: str | None) -> Finding:
    what = f"{card.task}, {'embedded' if card.embedded else 'real'}"
    if missing is None:
        return Finding("models", card.id, "ok", f"{what}: {card.name}")
    if card.embedded and not card.extra:  # what an extra brings is not there until it is asked for
        return Finding("models", card.id, "failed", f"{what}: {missing}", _repair())
    return Finding("models", card.id, "absent", f"{what}: {missing}")


def _is_ours(host: str, port: int) -> bool:
    name = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)  # noqa: S104 - asks, does not listen
    url = f"http://{f'[{name}]' if ':' in name else name}:{port}/openapi.json"
    try:
        answer = httpx.get(url, timeout=ANSWER_SECONDS, trust_env=False).json()
    except (httpx.HTTPError, ValueError):
        return False
    return isinstance(answer, dict) and answer.get("info", {}).get("title") == "Sonoreel"


def _repair() -> str:
    return f"make -C {CHECKOUT} install" if _is_checkout() else "pip install --upgrade --force-reinstall sonoreel"


def _reinstall(package: str) -> str:
    return f"{sys.executable} -m pip install --force-reinstall {package}"


def _install_extra(extra: str) -> str:
    return f"make -C {CHECKOUT} install EXTRAS={extra}" if _is_checkout() else f"pip install 'sonoreel[{extra}]'"


def _is_checkout() -> bool:
    return (CHECKOUT / "Makefile").is_file()


def _gigabytes(size: int) -> str:
    return f"{size / 1e9:.1f} GB"
