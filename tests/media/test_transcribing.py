"""Recogniser and diarizer side by side, in real worker processes that follow a script."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import anyio
import pytest

from media.transcribing import Diarization, Transcribing
from models.catalog import Card, Catalog
from models.errors import EngineFailed, InvalidInput
from models.interfaces import KnownSpeaker, TranscriptionRequest
from models.pool import Pool
from models.run import Steps
from models.spool import SpoolWriter
from streaming.transcript import Segment

EARS = Card(id="ears", task="transcription", engine="tests.scripted_transcriber", name="Ears", concurrency=4)
WHO = Card(id="who", task="diarization", engine="tests.scripted_transcriber", name="Who", concurrency=4)


@pytest.fixture
async def pool() -> AsyncIterator[Pool]:
    async with Pool(Catalog((EARS, WHO))) as pool:
        yield pool


@pytest.fixture
async def transcribing(pool: Pool, tmp_path: Path) -> AsyncIterator[Any]:
    """Make one, of a script; afterwards nothing is leased and nothing lies about."""
    path = tmp_path / "recording"

    def make(script: str, *, speakers: dict[str, Any] | None = None, **options: Any) -> Transcribing:
        path.write_text(script)
        diarization = None if speakers is None else Diarization(WHO, tmp_path / "pcm", **speakers)
        request = TranscriptionRequest(path=str(path), language=options.pop("language", ""))
        return Transcribing(pool, EARS, request, diarization, **options)

    yield make
    with anyio.fail_after(5):
        while any(stats.running for stats in pool.stats().values()):  # noqa: ASYNC110 - it is other processes
            await anyio.sleep(0.01)
    assert list(tmp_path.iterdir()) in ([], [path])


async def test_segments_come_as_they_settle_and_together_in_the_end(transcribing: Any) -> None:
    heard: list[Segment] = []

    async def on_segment(segment: Segment) -> None:
        heard.append(segment)

    transcript = await transcribing("say one two\nsay three\n", on_segment=on_segment, language="fr").result()
    assert [segment.text for segment in heard] == ["one two", "three"]
    assert transcript.segments == tuple(heard)
    assert (transcript.text, transcript.duration, transcript.language) == ("one two three", 2.0, "fr")
    assert not transcript.diarized
    assert not transcript.words


async def test_an_empty_recording_has_no_segments(transcribing: Any) -> None:
    transcript = await transcribing("").result()
    assert (transcript.text, transcript.segments, transcript.duration) == ("", (), 0.0)


async def test_speakers_are_put_to_the_words(transcribing: Any) -> None:
    transcript = await transcribing("say a b\nsay c d\nsay e f\n", speakers={}).result()
    assert transcript.diarized
    assert [(word.text, word.speaker) for word in transcript.words] == [
        ("a", "SPEAKER_00"),
        ("b", "SPEAKER_00"),
        ("c", "SPEAKER_01"),
        ("d", "SPEAKER_01"),
        ("e", "SPEAKER_00"),
        ("f", "SPEAKER_00"),
    ]
    assert [segment.text for segment in transcript.segments] == ["a b", "c d", "e f"]


async def test_known_speakers_reach_the_diarizer(transcribing: Any, tmp_path: Path) -> None:
    known = (KnownSpeaker("Ann", "a.wav"), KnownSpeaker("Bob", "b.wav"))
    transcript = await transcribing("say a b\nsay c d\n", speakers={"known_speakers": known}).result()
    assert [word.speaker for word in transcript.words] == ["Ann", "Ann", "Bob", "Bob"]


async def test_speakers_of_a_recording_in_which_nobody_speaks(transcribing: Any) -> None:
    transcript = await transcribing("", speakers={}).result()
    assert transcript.diarized
    assert transcript.words == []


async def test_what_the_diarizer_does_not_hear_was_said_by_somebody(transcribing: Any) -> None:
    transcript = await transcribing("whisper a b\n", speakers={}).result()
    assert [(word.text, word.speaker) for word in transcript.words] == [("a", "SPEAKER_00"), ("b", "SPEAKER_00")]


async def test_segments_without_word_times_have_speakers_too(transcribing: Any) -> None:
    transcript = await transcribing("hum a b\nhum c d\n", speakers={}).result()
    assert [(said.speaker, said.text) for said in transcript.utterances] == [
        ("SPEAKER_00", "a b"),
        ("SPEAKER_01", "c d"),
    ]


@pytest.mark.parametrize(("count", "message"), [(9, "The diarizer failed."), (10, "'who'")])
async def test_a_diarizer_that_fails_fails_the_whole(transcribing: Any, count: int, message: str) -> None:
    with pytest.raises(EngineFailed, match=message):
        await transcribing("say a b\nwait\n", speakers={"num_speakers": count}).result()


@pytest.mark.parametrize("speakers", [None, {}])
async def test_what_the_recogniser_says_is_wrong_is_what_is_wrong(transcribing: Any, speakers: Any) -> None:
    """The diarizer loses the audio it listens to at the same moment, and has its own words for it."""
    with pytest.raises(InvalidInput, match="no audio in it") as refused:
        await transcribing("say a b\ninvalid\n", speakers=speakers).result()
    assert (refused.value.field, refused.value.code) == ("file", "corrupt_audio")


async def test_a_listener_that_fails_ends_the_work(transcribing: Any) -> None:
    async def on_segment(segment: Segment) -> None:
        raise ConnectionError

    with pytest.raises(ConnectionError):
        await transcribing("say a b\nwait\n", on_segment=on_segment).result()


@pytest.mark.parametrize("speakers", [None, {}])
async def test_cancelling_lets_go_of_everything(transcribing: Any, speakers: Any) -> None:
    heard = anyio.Event()

    async def on_segment(segment: Segment) -> None:
        heard.set()

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(transcribing("say a b\nwait\n", speakers=speakers, on_segment=on_segment).result)
        await heard.wait()
        tasks.cancel_scope.cancel()


async def test_progress_is_that_of_whoever_is_behind(transcribing: Any, pool: Pool, tmp_path: Path) -> None:
    """The recording still arrives; the diarizer has not come beyond its first second."""
    steps: list[Steps] = []
    behind = anyio.Event()

    async def on_progress(step: Steps) -> None:
        steps.append(step)
        if step.done == 0.0:
            behind.set()

    spool = SpoolWriter(tmp_path / "spool")
    request = TranscriptionRequest(path=str(spool.path))
    work = Transcribing(pool, EARS, request, Diarization(WHO, tmp_path / "pcm"), on_progress=on_progress)
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(work.result)
        await anyio.to_thread.run_sync(spool.write, b"say a\nsay b\n")
        await behind.wait()
        await anyio.to_thread.run_sync(spool.finish)
    await anyio.to_thread.run_sync(spool.path.unlink)
    assert all(step.total is None for step in steps)
