"""Turns and speakers over a real socket: who said what in a real conversation, ends that depend on what was said."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from streaming.audio import PcmEncoding, Samples, decode_pcm, encode_pcm
from streaming.transcript import SpeakerTurn
from streaming.wav import wav_header
from tests.journeys.recordings import frames_of, read, speak, spoken_samples, with_pauses
from tests.journeys.server_process import ServerProcess
from tests.journeys.sockets import Frame, Socket, encoded, kinds, of_kind, open_socket
from tests.models.engines.test_voiceprint import error_rate
from tests.streaming.noises import NOISES

PATH = "/v1/realtime"
APPEND, COMMIT = "input_audio_buffer.append", "input_audio_buffer.commit"
TRANSCRIPTION = "conversation.item.input_audio_transcription"
COMPLETED, FAILED, SEGMENT = (f"{TRANSCRIPTION}.{kind}" for kind in ("completed", "failed", "segment"))
EAGER, RESUMED = f"{TRANSCRIPTION}.eager_end_of_turn", f"{TRANSCRIPTION}.turn_resumed"
RELABELLED = f"{TRANSCRIPTION}.speaker.relabelled"
TOGETHER = {"model": "auto", "input_audio_format": "pcm_s16le_16000"}
OPENAI = {"intent": "transcription"}
SIXTEEN_KILOHERTZ = {"type": "transcription", "audio": {"input": {"format": {"type": "audio/pcm", "rate": 16_000}}}}
SENTENCE, OTHER = "I would like a cup of coffee.", "The weather is going to be nice tomorrow."

BREATH = 0.5
"""Seconds between two words within which nobody has stopped."""

pytestmark = pytest.mark.journey


async def hear(socket: Socket, samples: Samples) -> None:
    """Send samples in frames of 100 ms, as fast as they are taken."""
    for frame in frames_of(samples):
        await socket.send(APPEND, audio=encoded(frame))


async def finals(socket: Socket, seconds: float) -> list[Frame]:
    """What turns became, up to the one that ends in this second of the session or later."""
    while True:
        found = of_kind(socket.frames, COMPLETED)
        if found and _end(found[-1]) >= seconds:
            return found
        await socket.receive()


def _end(turn: Frame) -> float:
    """OpenAI's turns do not say when they were: their last word does."""
    end: float = turn["start"] + turn["duration"] if "start" in turn else turn["words"][-1]["end"] + 1.0
    return end


def reference(path: Path) -> tuple[SpeakerTurn, ...]:
    fields = [line.split() for line in path.read_text().splitlines()]
    return tuple(SpeakerTurn(field[7], float(field[3]), float(field[3]) + float(field[4])) for field in fields)


def said(words: Sequence[dict[str, Any]]) -> tuple[SpeakerTurn, ...]:
    """Words as turns; somebody whose words follow one another does not stop in between."""
    turns: list[SpeakerTurn] = []
    for word in words:
        start = word["start"]
        if turns and turns[-1].speaker == word["speaker"] and start - turns[-1].end <= BREATH:
            start = turns.pop().start
        turns.append(SpeakerTurn(word["speaker"], start, word["end"]))
    return tuple(turns)


def corrected(names: list[str], starts: list[float], frames: Sequence[Frame]) -> list[str]:
    """The names after what was corrected later."""
    for frame in of_kind(frames, RELABELLED):
        for index, start in enumerate(starts):
            if names[index] == frame["old"] and frame["start"] <= start <= frame["end"]:
                names[index] = frame["new"]
    return names


def clip(samples: Samples) -> str:
    """A data URL of a WAV file."""
    file = wav_header(16_000, PcmEncoding.S16LE, len(samples)) + encode_pcm(samples, PcmEncoding.S16LE)
    return f"data:audio/wav;base64,{encoded(file)}"


# ---------------------------------------------------------------------- who spoke


@pytest.fixture(scope="module")
def conversation(shared_audio: Path) -> tuple[Samples, tuple[SpeakerTurn, ...]]:
    """A recording of two people, and who speaks when."""
    return read(shared_audio / "two-speakers.wav"), reference(shared_audio / "two-speakers.rttm")


@pytest.mark.timeout(240)  # half a minute of speech through the recogniser, on a machine that may be busy
async def test_a_conversation_over_the_telephone(
    server: ServerProcess, conversation: tuple[Samples, tuple[SpeakerTurn, ...]]
) -> None:
    samples, who = conversation
    async with open_socket(server, PATH, OPENAI | {"diarize": "true"}) as socket:
        await socket.receive()
        await socket.send("session.update", session=SIXTEEN_KILOHERTZ)
        await hear(socket, with_pauses(samples, before=0.0))
        turns = await finals(socket, 29.5)
        words = [word for turn in turns for word in turn["words"]]
        assert {word["speaker"] for word in words} == {"SPEAKER_00", "SPEAKER_01"}
        assert all(turn["speaker"] in {word["speaker"] for word in turn["words"]} for turn in turns if turn["words"])
        found = said(words)
        assert error_rate(who, found, len(samples) / 16_000) <= 0.25
        for frame in of_kind(socket.frames, RELABELLED):
            assert {frame["old"], frame["new"]} <= {"SPEAKER_00", "SPEAKER_01"}
        segments = of_kind(socket.frames, SEGMENT)
        assert " ".join(each["text"] for each in segments) == " ".join(turn["transcript"] for turn in turns)


async def test_people_who_were_introduced_have_their_names(server: ServerProcess) -> None:
    voices = {"Ann": "nova", "Bob": "onyx"}
    spoken = {
        name: decode_pcm(speak(server, f"{SENTENCE} {OTHER}", voice=voice), PcmEncoding.S16LE)
        for name, voice in voices.items()
    }
    clips = [clip(samples) for samples in spoken.values()]
    async with open_socket(server, PATH, TOGETHER | {"max_speech_duration_s": 30}) as socket:
        await socket.receive()
        introduction = {"known_speaker_names": list(voices), "known_speaker_references": clips}
        await socket.send("transcription_session.updated", session={"diarize": True} | introduction)
        answer = (await socket.until("transcription_session.updated"))[-1]
        assert answer["session"]["diarize"] is True
        for name in ("Ann", "Bob", "Ann"):
            await hear(socket, with_pauses(spoken[name]))
        while len(turns := of_kind(socket.frames, COMPLETED)) < 3:
            await socket.receive()
        names = corrected([turn["speaker"] for turn in turns], [turn["start"] for turn in turns], socket.frames)
        assert names == ["Ann", "Bob", "Ann"]


async def test_a_clip_that_is_none_is_refused_and_the_session_goes_on(server: ServerProcess) -> None:
    async with open_socket(server, PATH, TOGETHER) as socket:
        await socket.receive()
        for reference in ("data:audio/wav;base64,AAAA", "file_that_is_not_there", clip(np.zeros(32_000, np.float32))):
            introduction = {"known_speaker_names": ["Ann"], "known_speaker_references": [reference]}
            await socket.send("transcription_session.updated", session={"diarize": True} | introduction)
            error = (await socket.until(FAILED))[-1]["error"]
            assert error["param"] == "known_speaker_references"
        await hear(socket, with_pauses(spoken_samples(server, SENTENCE)))
        assert "speaker" not in (await socket.until(COMPLETED))[-1]


# ---------------------------------------------------------------------- when a turn is over


async def test_an_unfinished_sentence_is_waited_for(server: ServerProcess) -> None:
    """With silence alone, the same pause makes two turns of it."""
    beginning = spoken_samples(server, "I would like a cup of coffee and the")
    speech = np.concatenate([with_pauses(beginning, after=1.2), spoken_samples(server, "kitchen light.")])
    counts = {}
    for kind in ("server_vad", "server_vad", "semantic_vad"):  # once for the recogniser to be there
        async with open_socket(
            server, PATH, TOGETHER | {"turn_detection": kind, "max_speech_duration_s": 30}
        ) as socket:
            await socket.receive()
            for frame in frames_of(with_pauses(speech, after=0.0)):
                await socket.send(APPEND, audio=encoded(frame))
                await socket.send("echo", echo_id=1)
                await socket.until("echo.response")
            await hear(socket, np.zeros(5 * 16_000, np.float32))
            await finals(socket, len(speech) / 16_000 - 0.5)
            assert not of_kind(socket.frames, FAILED)
            counts[kind] = len(of_kind(socket.frames, COMPLETED))
    assert counts == {"server_vad": 2, "semantic_vad": 1}


async def test_a_commit_does_not_wait_for_the_rest_of_a_sentence(server: ServerProcess) -> None:
    async with open_socket(server, PATH, TOGETHER | {"turn_detection": "semantic_vad", "eagerness": "low"}) as socket:
        await socket.receive()
        await hear(socket, with_pauses(spoken_samples(server, "I would like a cup of coffee and the"), after=0.5))
        await socket.send(COMMIT)
        assert "coffee" in (await socket.until(COMPLETED))[-1]["transcript"]


async def test_a_probable_end_is_told_early_and_taken_back(server: ServerProcess) -> None:
    query = TOGETHER | {"min_silence_duration_ms": 3000, "eager_eot_threshold": 0.3, "max_speech_duration_s": 30}
    speech = spoken_samples(server, SENTENCE)
    async with open_socket(server, PATH, query) as socket:
        await socket.receive()
        await hear(socket, with_pauses(speech, after=1.5))
        eager = (await socket.until(EAGER))[-1]
        assert eager["transcript"]
        assert 0.3 <= eager["end_of_turn_confidence"] <= 1.0
        await hear(socket, with_pauses(speech, after=4.0))
        await socket.until(COMPLETED)
        later = [kind for kind in kinds(socket.frames) if kind in (EAGER, RESUMED, COMPLETED)]
        assert RESUMED in later
        assert later[-1] == COMPLETED
        assert later[0] == EAGER
        assert all(one != other or one == EAGER for one, other in zip(later, later[1:], strict=False))


# ---------------------------------------------------------------------- nobody speaks


async def test_noises_committed_by_hand_have_no_words(server: ServerProcess) -> None:
    async with open_socket(server, PATH, TOGETHER | {"turn_detection": "none"}) as socket:
        await socket.receive()
        for noise in NOISES.values():
            await hear(socket, noise(5.0))
            await socket.send(COMMIT)
            assert (await socket.until(COMPLETED))[-1]["transcript"] == ""
