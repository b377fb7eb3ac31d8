"""`sonoreel transcribe`: a file, a URL or a pipe written down, by whom it was said included."""

from __future__ import annotations

import dataclasses
import json
import math
import os
import sys
import tempfile
from collections.abc import Awaitable, Callable
from contextlib import AbstractAsyncContextManager, nullcontext
from dataclasses import dataclass
from functools import partial
from io import FileIO
from pathlib import Path
from typing import Annotated, BinaryIO, Literal, NamedTuple, TypeAlias
from urllib.parse import urlsplit

import anyio
import anyio.to_thread
import msgspec
import typer

from media.destination import destination
from media.fetch import Fetcher, Limits
from media.local import arriving, load_catalog, local_models, receive
from media.recordings import Recording, pull, spool_path
from media.settings import Settings, load_settings
from media.terminal import ModelOption, ProgressBar, find_card, target, write
from media.transcribing import Diarization
from media.transcripts import ResponseFormat, Transcript, written
from models.catalog import AUTO, Card, Catalog
from models.interfaces import KnownSpeaker, TranscriptionRequest
from streaming.transcript import Segment

FORMATS: dict[str, ResponseFormat] = {".srt": "srt", ".vtt": "vtt", ".json": "json"}
"""What the name of the output says; anything else is text."""
UNLIMITED = Limits(bytes=sys.maxsize, seconds=math.inf)
"""Whoever typed the URL sees how it goes and can stop it."""
NOTHING_YET = Path()

TaskName: TypeAlias = Literal["transcribe", "translate"]
FileArgument = Annotated[str, typer.Argument(metavar="FILE", help="any audio or video file, its URL, or - for a pipe")]
FormatOption = Annotated[
    ResponseFormat | None,
    typer.Option(help="by default what the ending of -o says, else text; verbose_json has the times of words"),
]
LanguageOption = Annotated[str, typer.Option(help="the language spoken, such as en; auto lets the model find out")]
TaskOption = Annotated[TaskName, typer.Option(help="translate is into English")]
TranslateOption = Annotated[bool, typer.Option("--translate", help="the same as --task translate")]
PromptOption = Annotated[str, typer.Option(help="names and spellings to expect, or what was said before")]
ChannelsOption = Annotated[Literal["mix", "split"], typer.Option(help="split writes every channel down by itself")]
DiarizeOption = Annotated[bool, typer.Option("--diarize", help="tell the speakers apart")]
CountOption = Annotated[int, typer.Option(min=0, max=50, help="implies --diarize; 0 is not known")]
KnownSpeakerOption = Annotated[
    list[str] | None,
    typer.Option(metavar="NAME=CLIP", help="a name and a recording of that voice alone; repeatable; implies --diarize"),
]
OutputOption = Annotated[
    Path | None, typer.Option("-o", "--output", dir_okay=False, help="file to write; else standard output")
]


class Source(NamedTuple):
    """What to listen to: the file at `path`, or what `fill` writes into a spool while it is being listened to."""

    title: str
    path: Path = NOTHING_YET
    fill: Callable[[Recording], Awaitable[None]] | None = None

    def open(self, folder: Path) -> AbstractAsyncContextManager[Path]:
        """The path of the file, or of the spool growing in `folder`."""
        return nullcontext(self.path) if self.fill is None else arriving(self.fill, folder)


@dataclass(frozen=True, slots=True)
class Job:
    """One transcription; the paths in `request` and `diarization` are filled in when it runs."""

    source: Source
    card: Card
    request: TranscriptionRequest
    diarization: Diarization | None
    format: ResponseFormat

    async def run(self, settings: Settings, catalog: Catalog, folder: Path, out: BinaryIO, bar: ProgressBar) -> None:
        """Do it with workers of its own; whatever has to be kept meanwhile lies in `folder`."""
        settles = self.format == "text" and self.diarization is None

        async def on_segment(segment: Segment) -> None:
            if settles:
                await _show(_line(segment), out, bar)

        diarization = self.diarization and dataclasses.replace(self.diarization, pcm_path=spool_path(folder, "pcm"))
        async with self.source.open(folder) as path, local_models(settings, catalog) as local:
            request = msgspec.structs.replace(self.request, path=str(path))
            transcript = await local.transcribe(
                self.card, request, diarization, on_segment=on_segment, on_progress=bar.update
            )
        if not settles:
            await _show(_rendered(transcript, self.format), out, bar)


def transcribe(
    file: FileArgument,
    model: ModelOption = AUTO,
    format: FormatOption = None,
    language: LanguageOption = "",
    task: TaskOption = "transcribe",
    translate: TranslateOption = False,
    prompt: PromptOption = "",
    channels: ChannelsOption = "mix",
    diarize: DiarizeOption = False,
    num_speakers: CountOption = 0,
    min_speakers: CountOption = 0,
    max_speakers: CountOption = 0,
    known_speaker: KnownSpeakerOption = None,
    diarization_model: ModelOption = AUTO,
    output: OutputOption = None,
) -> None:
    """Write a recording down. Text is printed as it is understood."""
    output = target(output)
    format = format or (FORMATS.get(output.suffix.lower(), "text") if output else "text")
    request = TranscriptionRequest(
        path="",
        task="translate" if translate else task,
        language="" if language == "auto" else language,
        prompt=prompt,
        word_timestamps=format not in ("text", "json"),
        split_channels=channels == "split",
    )
    known = tuple(_known_speaker(each) for each in known_speaker or ())
    counts = (num_speakers, min_speakers, max_speakers)
    settings = load_settings()
    catalog = load_catalog(settings)
    card = _recogniser(catalog, model, request.task)
    diarization = None
    if diarize or known or any(counts) or format == "diarized_json":
        _check_speakers(request, *counts)
        diarizer = find_card(catalog, diarization_model, "diarization", "--diarization-model")
        diarization = Diarization(diarizer, NOTHING_YET, *counts, known)
    job = Job(_source(file, settings), card, request, diarization, format)
    with (
        tempfile.TemporaryDirectory(prefix="sonoreel-", ignore_cleanup_errors=True) as folder,
        destination(output) as out,
        ProgressBar(job.source.title) as bar,
    ):
        anyio.run(job.run, settings, catalog, Path(folder), out, bar)


def _source(name: str, settings: Settings) -> Source:
    """Raises: BadParameter; OSError when what it names cannot be opened."""
    if name == "-":
        if sys.stdin.isatty():
            message = "a recording does not come from a terminal: name a file, or use a pipe"
            raise typer.BadParameter(message, param_hint="FILE")
        return Source("standard input", fill=partial(receive, FileIO(sys.stdin.fileno(), closefd=False)))
    if name.lower().startswith(("http://", "https://")):
        return _url(name, settings)
    path = Path(name)
    if not path.exists():
        raise typer.BadParameter(f"{name!r} does not exist", param_hint="FILE")
    if path.is_dir():
        raise typer.BadParameter(f"{name!r} is a folder", param_hint="FILE")
    if not os.access(path, os.R_OK):
        raise typer.BadParameter(f"{name!r} may not be read", param_hint="FILE")
    if path.is_file():
        return Source(path.name, path.resolve())
    return Source(path.name, fill=partial(receive, FileIO(path)))  # a named pipe, or a shell's <(...)


def _url(url: str, settings: Settings) -> Source:
    try:
        parts = urlsplit(url)
        host = parts.hostname or ""
    except ValueError as error:
        raise typer.BadParameter(f"{url!r} is no URL: {error}", param_hint="FILE") from error
    # A person may reach what this machine can reach; where a redirect leads is not theirs to know.
    fetcher = Fetcher(UNLIMITED, (*settings.fetch_allowed_hosts, host))
    return Source(Path(parts.path).name or host, fill=partial(pull, fetcher, url))


def _recogniser(catalog: Catalog, model: str, task: TaskName) -> Card:
    """Raises: BadParameter, UnknownModel, WeightsMissing."""
    if task == "translate" and model in ("", AUTO):
        for card in catalog.cards:
            if card.translates and catalog.missing(card) is None:
                return card
        raise typer.BadParameter("no model on this machine translates", param_hint="--model")
    card = find_card(catalog, model, "transcription")
    if task == "translate" and not card.translates:
        raise typer.BadParameter(f"model {card.id!r} does not translate", param_hint="--model")
    return card


def _known_speaker(text: str) -> KnownSpeaker:
    name, separator, clip = text.partition("=")
    if not (name.strip() and separator and clip):
        raise typer.BadParameter(f"{text!r} is not of the form NAME=CLIP", param_hint="--known-speaker")
    if not Path(clip).is_file():
        raise typer.BadParameter(f"there is no file {clip!r}", param_hint="--known-speaker")
    return KnownSpeaker(name.strip(), str(Path(clip).resolve()))


def _check_speakers(request: TranscriptionRequest, number: int, least: int, most: int) -> None:
    if request.split_channels:
        raise typer.BadParameter("split tells speakers apart already: leave --diarize out", param_hint="--channels")
    if (most and least > most) or (number and not least <= number <= (most or number)):
        raise typer.BadParameter(
            f"{number or 'any number'}, at least {least} and at most {most} speakers cannot be",
            param_hint="--num-speakers" if number else "--min-speakers",
        )


async def _show(text: str, out: BinaryIO, bar: ProgressBar) -> None:
    """Whoever reads may be slow, and may be interrupted."""
    if text:
        with bar.aside():
            await anyio.to_thread.run_sync(write, out, text.encode(), abandon_on_cancel=True)


def _line(segment: Segment) -> str:
    text = segment.text.strip()
    channel = "" if segment.channel is None else f"Channel {segment.channel}: "
    return f"{channel}{text}\n" if text else ""


def _rendered(transcript: Transcript, format: ResponseFormat) -> str:
    if format == "text" and (said := transcript.utterances):
        return "".join(f"{each.speaker}: {each.text}\n" for each in said)
    answer = written(transcript, format, words=True)
    return answer if isinstance(answer, str) else json.dumps(answer, ensure_ascii=False, indent=2) + "\n"
