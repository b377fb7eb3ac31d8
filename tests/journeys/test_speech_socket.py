"""Together's speech socket, spoken to frame by frame."""

from __future__ import annotations

import itertools
import json
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import numpy as np
import pytest

from media.dialects.speech_options import SAMPLE_RATES
from streaming.audio import PcmEncoding, decode_pcm
from streaming.encode import AudioFormat
from tests.journeys.recordings import seconds_of
from tests.journeys.server_process import ServerProcess
from tests.journeys.sockets import Frame, Socket, decoded, kinds, of_kind, open_socket

PATH = "/v1/audio/speech/websocket"
APPEND, COMMIT = "input_text_buffer.append", "input_text_buffer.commit"
RECEIVED = "conversation.item.input_text.received"
AUDIO, DONE = "conversation.item.audio_output.delta", "conversation.item.audio_output.done"
WORDS, FAILED = "conversation.item.word_timestamps", "conversation.item.tts.failed"
TEXT = "Hello there. The weather is nice today, isn't it?"
LONG_TEXT = "This sentence goes on for a good while. " * 12
HEADERLESS = {
    "pcm": (PcmEncoding.S16LE, 2),
    "mulaw": (PcmEncoding.MULAW, 1),
    "alaw": (PcmEncoding.ALAW, 1),
}

pytestmark = pytest.mark.journey


@asynccontextmanager
async def speech_socket(server: ServerProcess, **query: object) -> AsyncIterator[Socket]:
    """An open session, unpaced unless the test says otherwise."""
    async with open_socket(server, PATH, {"model": "auto", "voice": "alloy", "pacing": "none"} | query) as socket:
        created = await socket.receive()
        assert created["type"] == "session.created"
        assert created["session"]["object"] == "realtime.tts.session"
        yield socket


async def say(socket: Socket, text: str, context_id: str = "default") -> list[Frame]:
    """Append, commit, and everything up to the end of the item."""
    await socket.send(APPEND, text=text, context_id=context_id)
    await socket.send(COMMIT, context_id=context_id)
    return await socket.until(DONE, context_id=context_id)


def pcm_seconds(frames: list[Frame], rate: int = 24_000) -> float:
    return len(decoded(of_kind(frames, AUDIO))) / 2 / rate


def is_sound(data: bytes) -> bool:
    return bool(np.max(np.abs(decode_pcm(data, PcmEncoding.S16LE))) > 0.05)


async def test_text_that_comes_token_by_token_is_spoken_before_it_is_complete(server: ServerProcess) -> None:
    first, *rest = re.split(r"(?<=\. )", TEXT)
    async with speech_socket(server) as socket:
        for token in [*re.findall(r"\s*\S+", first), " The"]:
            await socket.send(APPEND, text=token)
        early = await socket.until(AUDIO)
        await socket.send(APPEND, text="".join(rest).removeprefix("The"))
        await socket.send(COMMIT)
        frames = early + await socket.until(DONE)
        await say(socket, "Anything else.", "later")

        acknowledged = "".join(frame["text"] for frame in of_kind(frames, RECEIVED))
        assert acknowledged.split() == TEXT.split()
        audio = of_kind(frames, AUDIO)
        assert is_sound(decoded(audio))
        assert pcm_seconds(frames) > 2
        assert {frame["item_id"] for frame in audio} == {frames[-1]["item_id"]}
        assert len(of_kind(socket.frames, DONE, context_id="default")) == 1


async def test_the_words_come_with_their_times(server: ServerProcess) -> None:
    async with speech_socket(server, alignment="word") as socket:
        frames = await say(socket, TEXT)
        timed = of_kind(frames, WORDS)
        words = [word for frame in timed for word in frame["words"]]
        starts = [start for frame in timed for start in frame["start_seconds"]]
        ends = [end for frame in timed for end in frame["end_seconds"]]
        assert re.findall(r"[\w']+", " ".join(words)) == re.findall(r"[\w']+", TEXT)
        assert starts == sorted(starts)
        assert all(start < end for start, end in zip(starts, ends, strict=True))
        assert ends[-1] <= pcm_seconds(frames) + 0.05
        assert {frame["item_id"] for frame in timed} == {frames[-1]["item_id"]}


async def test_no_words_come_unasked(server: ServerProcess) -> None:
    async with speech_socket(server) as socket:
        assert of_kind(await say(socket, "Hello."), WORDS) == []


@pytest.mark.parametrize("audio_format", [format.value for format in AudioFormat])
async def test_every_format_plays_at_every_rate(server: ServerProcess, audio_format: str) -> None:
    async with speech_socket(server, sample_rate=24_000) as socket:
        seconds = pcm_seconds(await say(socket, "Good morning."))
        for rate in SAMPLE_RATES:
            context = f"at {rate}"
            session = {"response_format": audio_format, "sample_rate": rate}
            await socket.send("tts_session.updated", session=session, context_id=context)
            frames = await say(socket, "Good morning.", context)
            audio = decoded(of_kind(frames, AUDIO, context_id=context))
            if audio_format in HEADERLESS:
                encoding, width = HEADERLESS[audio_format]
                assert len(audio) / width / rate == pytest.approx(seconds, abs=0.01), context
                assert np.max(np.abs(decode_pcm(audio, encoding))) > 0.05
            else:
                padding = 0.01 if audio_format in ("wav", "flac") else 0.4
                assert seconds - 0.01 <= seconds_of(audio) <= seconds + padding, context


async def test_segment_immediate_speaks_what_it_is_given(server: ServerProcess) -> None:
    async with speech_socket(server, segment="immediate") as socket:
        await socket.send(APPEND, text="no sentence ends here")
        assert pcm_seconds(await socket.until(AUDIO)) > 0
        assert of_kind(socket.frames, DONE) == []
        await socket.send(COMMIT)
        assert pcm_seconds(await socket.until(DONE)) > 1


async def test_segment_never_waits_for_the_commit(server: ServerProcess) -> None:
    async with speech_socket(server, segment="never") as socket:
        await socket.send(APPEND, text=TEXT, context_id="patient")
        await say(socket, "Meanwhile, another speaks.", "other")
        assert of_kind(socket.frames, AUDIO, context_id="patient") == []
        await socket.send(COMMIT, context_id="patient")
        assert pcm_seconds(await socket.until(DONE, context_id="patient")) > 2


async def test_contexts_speak_side_by_side_and_keep_their_own_voice(server: ServerProcess) -> None:
    names = ["slow", "middle", "fast"]
    async with speech_socket(server) as socket:
        for name, speed in zip(names, [0.5, 1, 2], strict=True):
            await socket.send("tts_session.updated", session={"speed": speed}, context_id=name)
            await socket.send(APPEND, text=TEXT, context_id=name)
        for name in names:
            await socket.send(COMMIT, context_id=name)
        while len(of_kind(socket.frames, DONE)) < len(names):
            await socket.receive()
        audio = {name: of_kind(socket.frames, AUDIO, context_id=name) for name in names}
        lengths = [pcm_seconds(audio[name]) for name in names]
        assert lengths[0] > 1.3 * lengths[1] > 1.3**2 * lengths[2]
        items = [{frame["item_id"] for frame in audio[name]} for name in names]
        assert len(set.union(*items)) == len(names)


async def test_clear_takes_back_what_is_not_spoken(server: ServerProcess) -> None:
    async with speech_socket(server, segment="never") as socket:
        await socket.send(APPEND, text=TEXT)
        await socket.send("input_text_buffer.clear")
        assert (await socket.until("input_text_buffer.cleared"))[-1]["text"] == TEXT
        await socket.send(COMMIT)
        await say(socket, "Something else.", "other")
        assert of_kind(socket.frames, AUDIO, context_id="default") == []
        assert pcm_seconds(await say(socket, "Now then.")) > 0.3
        assert len(of_kind(socket.frames, DONE, context_id="default")) == 1


async def test_clear_and_cancel_of_nothing_are_harmless(server: ServerProcess) -> None:
    async with speech_socket(server) as socket:
        await socket.send("input_text_buffer.clear", context_id="never heard of")
        await socket.send("context.cancel", context_id="never heard of")
        cancelled = (await socket.until("context.cancelled"))[-1]
        assert cancelled["context_id"] == "never heard of"
        assert pcm_seconds(await say(socket, "Hello.")) > 0.2
        assert of_kind(socket.frames, FAILED) == []


@pytest.mark.parametrize("pacing", ["realtime", "none"])
async def test_cancel_silences_a_context_and_says_what_was_heard(server: ServerProcess, pacing: str) -> None:
    async with speech_socket(server, pacing=pacing) as socket:
        await socket.send(APPEND, text=LONG_TEXT, context_id="long")
        await socket.send(COMMIT, context_id="long")
        await socket.until(AUDIO, context_id="long")
        await socket.send("context.cancel", context_id="long")
        cancelled = (await socket.until("context.cancelled", context_id="long"))[-1]
        assert cancelled["text_spoken"] + cancelled["text_remaining"] == LONG_TEXT
        assert len(cancelled["text_spoken"]) < len(LONG_TEXT) / 2
        position = len(socket.frames)
        await say(socket, "Another context goes on.", "other")
        assert of_kind(socket.frames[position:], AUDIO, context_id="long") == []
        assert pcm_seconds(await say(socket, "And this one starts over.", "long")) > 0.5


async def test_settings_change_in_the_middle_of_a_session(server: ServerProcess) -> None:
    async with speech_socket(server, sample_rate=16_000) as socket:
        before = await say(socket, TEXT)
        await socket.send("tts_session.updated", session={"speed": 2.0, "sample_rate": 8_000, "voice": "onyx"})
        after = await say(socket, TEXT)
        session = of_kind(after, "tts_session.updated")[0]["session"]
        assert (session["speed"], session["sample_rate"], session["voice"]) == (2.0, 8_000, "onyx")
        assert pcm_seconds(after, 8_000) < 0.75 * pcm_seconds(before, 16_000)
        await socket.send("tts_session.updated", session={"response_format": "wav", "alignment": "word"})
        worded = await say(socket, TEXT)
        assert decoded(of_kind(worded, AUDIO)).startswith(b"RIFF")
        assert of_kind(worded, WORDS)


async def test_empty_commits_are_harmless_and_each_text_has_one_done(server: ServerProcess) -> None:
    async with speech_socket(server) as socket:
        await socket.send(COMMIT)
        for text in ("One.", "Two.", "Three."):
            await socket.send(APPEND, text=text)
            for _ in range(3):
                await socket.send(COMMIT)
        while len(of_kind(socket.frames, DONE)) < 3:
            await socket.receive()
        await socket.send(COMMIT)
        await say(socket, "The end.", "other")
        items = [frame["item_id"] for frame in of_kind(socket.frames, DONE, context_id="default")]
        assert len(items) == len(set(items)) == 3
        spoken = [frame["item_id"] for frame in of_kind(socket.frames, AUDIO, context_id="default")]
        assert [item for item, _ in itertools.groupby(spoken)] == items


BAD_FRAMES: list[tuple[str | bytes, str | None]] = [
    ("", None),
    ("this is no JSON", None),
    ("[1, 2]", None),
    ("{}", None),
    ('{"type": "input_text_buffer.shout"}', "type"),
    ('{"type": "input_text_buffer.append"}', None),
    ('{"type": "input_text_buffer.append", "text": 7}', "text"),
    ('{"type": "input_text_buffer.commit", "context_id": []}', "context_id"),
    ('{"type": "tts_session.updated", "session": {"speed": 99}}', "speed"),
    ('{"type": "tts_session.updated", "session": {"response_format": "8-track"}}', "response_format"),
    ('{"type": "tts_session.updated", "session": {"sample_rate": 12345}}', "sample_rate"),
    ('{"type": "tts_session.updated", "session": {"segment": "sometimes"}}', "session.segment"),
    ('{"type": "tts_session.updated", "session": {"model": "no-such-model"}}', "model"),
    (b"\x00\x01\x02\x03", None),
    ('{"type": "input_text_buffer.append", "text": "\\ud800"}', None),
]


async def test_bad_frames_are_answered_and_the_session_survives(server: ServerProcess) -> None:
    async with speech_socket(server) as socket:
        for bad, param in BAD_FRAMES:
            await socket.connection.send(bad)
            failed = await socket.receive()
            assert failed["type"] == FAILED, bad
            error = failed["error"]
            assert error["message"], bad
            assert error["type"] == "invalid_request_error", bad
            assert error["code"], bad
            if param is not None:
                assert error["param"] == param, bad
        assert pcm_seconds(await say(socket, "Still here.")) > 0.3
        assert len(of_kind(socket.frames, FAILED)) == len(BAD_FRAMES)


async def test_a_hundred_contexts_are_the_most(server: ServerProcess) -> None:
    async with speech_socket(server, segment="never") as socket:
        for number in range(101):
            await socket.send(APPEND, text="Waiting.", context_id=f"c{number}")
        refused = (await socket.until(FAILED))[-1]
        assert refused["context_id"] == "c100"
        assert refused["error"]["code"] == "too_many_contexts"
        await socket.send("context.cancel", context_id="c7")
        assert pcm_seconds(await say(socket, "There is room again.", "c100")) > 0.5


async def test_contexts_that_have_finished_make_room(server: ServerProcess) -> None:
    async with speech_socket(server, speed=4) as socket:
        for number in range(101):
            assert of_kind(await say(socket, "Hi.", f"turn {number}"), AUDIO)
        assert of_kind(socket.frames, FAILED) == []


@pytest.mark.parametrize(
    ("query", "code", "param"),
    [
        ({"model": "no-such-model"}, "model_not_available", "model"),
        ({"model": "pocketsphinx"}, "model_not_available", "model"),
        ({"response_format": "8-track"}, "invalid_value", "response_format"),
        ({"sample_rate": 12345}, "invalid_value", "sample_rate"),
        ({"speed": "fast"}, "invalid_value", "speed"),
    ],
)
async def test_a_session_that_cannot_be_is_refused_in_band(
    server: ServerProcess, query: dict[str, object], code: str, param: str
) -> None:
    async with open_socket(server, PATH, {"model": "auto"} | query) as socket:
        frames, closed = await socket.until_closed()
        assert kinds(frames) == [FAILED]
        assert frames[0]["error"]["code"] == code
        assert frames[0]["error"]["param"] == param
        assert closed == 1008


async def test_an_unknown_voice_fails_the_item_and_not_the_session(server: ServerProcess) -> None:
    async with speech_socket(server, voice="nobody") as socket:
        await socket.send(APPEND, text="Can anybody say this?")
        await socket.send(COMMIT)
        failed = (await socket.until(FAILED))[-1]
        assert failed["error"]["param"] == "voice"
        assert failed["text_remaining"] == "Can anybody say this?"
        await socket.until(DONE)
        await socket.send("tts_session.updated", session={"voice": "nova"})
        assert pcm_seconds(await say(socket, "Somebody can.")) > 0.3


async def test_a_client_may_configure_before_it_has_read_anything(server: ServerProcess) -> None:
    """Pipecat's way: settings at once, a commit after every append, and one more at the end."""
    async with open_socket(server, PATH, {"model": "auto"}) as socket:
        await socket.send("tts_session.updated", session={"voice": "nova", "pacing": "none"})
        for text in ("Hello there.", "How are you?"):
            await socket.send(APPEND, text=text, context_id="turn")
            await socket.send(COMMIT, context_id="turn")
        await socket.send(COMMIT, context_id="turn")
        while len(of_kind(socket.frames, DONE)) < 2:
            await socket.receive()
        assert kinds(socket.frames[:2]) == ["session.created", "tts_session.updated"]
        assert pcm_seconds(socket.frames) > 1


async def test_markup_and_foreign_letters_are_text(server: ServerProcess) -> None:
    async with speech_socket(server) as socket:
        for text in ("<speak>Hello & good bye</speak>", "naïve café 你好 🙂", "\u0000\u0007", "   ", "..."):
            await socket.connection.send(json.dumps({"type": APPEND, "text": text}, ensure_ascii=False))
            await socket.send(COMMIT)
            await socket.until(RECEIVED, text=text)
        assert pcm_seconds(await say(socket, "Still here.", "other")) > 0.3
        assert of_kind(socket.frames, FAILED) == []
