"""Voices in a conversation that goes on: labels that stay, corrections that come late, memory that does not grow."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
import pytest

from models.catalog import Catalog
from models.engines import voiceprint
from models.engines.voiceprint import VoiceprintDiarizer
from models.interfaces import VoicesRequest
from models.live_speakers import REMEMBERED, LiveSpeakers, Relabelling, Window
from streaming.audio import PcmEncoding, Samples
from streaming.listening_events import Conclude, ListeningSettings, SpeakerRelabelled, WhoSpeaks
from streaming.recognition import RecognitionSession
from streaming.transcript import Segment, SpeakerTurn
from streaming.voice_activity import SileroVoiceActivity, TurnDetection
from tests.journeys.recordings import read
from tests.models.engines.test_voiceprint import CLEAR, conversation, dialogue, error_rate, spoken

DIMENSIONS = 64
STEP = 0.2
TOGETHER = TurnDetection(threshold=0.3, silence_duration=0.5, max_speech=5.0)
OPENAI = TurnDetection(min_speech=0.1, max_speech=30.0)


def voice(number: int, likeness: float = 0.0) -> Samples:
    """The middle of a voice; with a likeness, so close to the one before it."""
    vector = np.zeros(DIMENSIONS, np.float32)
    vector[number] = 1.0
    if likeness:
        vector[number], vector[number - 1] = np.sqrt(1 - likeness**2), likeness
    return vector


def windows(middle: Samples, count: int, start: float, seed: int = 0) -> list[Window]:
    """Windows of one voice, each a little different."""
    generator = np.random.default_rng((seed, round(start * 100)))
    made = []
    for index in range(count):
        vector = middle + generator.normal(0, 0.05, DIMENSIONS).astype(np.float32)
        made.append(Window(start + STEP * index, start + STEP * (index + 1), vector / np.linalg.norm(vector)))
    return made


class Listener:
    """Hears stretches one after another, and remembers what it was told with all corrections."""

    def __init__(self, known: dict[str, Samples] | None = None) -> None:
        self.speakers = LiveSpeakers(known)
        self.at = 0.0
        self.told: list[SpeakerTurn] = []
        self.first: list[SpeakerTurn] = []
        self.corrections: list[Relabelling] = []

    def hear(self, middle: Samples, count: int = 15) -> str:
        """Who was said to speak, at once."""
        turns, corrections = self.speakers.hear(windows(middle, count, self.at))
        self.at += STEP * count + 0.5
        self.first += turns
        self.told += turns
        self.corrections += corrections
        for each in corrections:
            self.told = [
                dataclasses.replace(turn, speaker=each.new)
                if turn.speaker == each.old and each.start <= (turn.start + turn.end) / 2 <= each.end
                else turn
                for turn in self.told
            ]
        assert all(turn.start < turn.end for turn in turns)
        return turns[-1].speaker


def test_labels_are_given_in_order_of_appearance_and_stay() -> None:
    listener = Listener()
    names = [listener.hear(voice(number)) for number in (3, 7, 3, 5, 7, 3, 5, 5)]
    expected = [f"SPEAKER_0{index}" for index in (0, 1, 0, 2, 1, 0, 2, 2)]
    assert names[3:] == expected[3:]
    assert [turn.speaker for turn in listener.told] == expected


def test_a_new_voice_is_noticed_after_minutes_of_another_one() -> None:
    listener = Listener()
    for _ in range(100):
        listener.hear(voice(1), 20)
    assert {turn.speaker for turn in listener.first} == {"SPEAKER_00"}
    assert listener.hear(voice(2), 20) == "SPEAKER_01"
    assert listener.hear(voice(1), 20) == "SPEAKER_00"


def test_memory_does_not_grow_and_who_spoke_rarely_is_known_all_the_same() -> None:
    listener = Listener()
    listener.hear(voice(1), 20)
    listener.hear(voice(2), 20)
    for _ in range(100):
        listener.hear(voice(1), 20)
        assert len(listener.speakers._windows) <= REMEMBERED
    assert listener.hear(voice(2), 20) == "SPEAKER_01"


def test_two_voices_that_turn_out_to_be_one_are_told_by_both_names() -> None:
    """A voice that drifts: its beginning and its end are far apart, until what lies between them is heard."""
    listener = Listener()
    one, other = voice(1), voice(2, likeness=0.6)
    middle = (one + other) / np.linalg.norm(one + other)
    for _ in range(2):
        listener.hear(one)
        listener.hear(other)
    assert {turn.speaker for turn in listener.told} == {"SPEAKER_00", "SPEAKER_01"}
    for share in np.linspace(0.0, 1.0, 40):
        mixed = one * (1 - share) + other * share
        listener.hear(np.asarray((mixed + middle) / np.linalg.norm(mixed + middle), np.float32), 20)
    for each in listener.corrections:
        assert each.old != each.new
        assert each.start < each.end
    speakers = {turn.speaker for turn in listener.told}
    assert "SPEAKER_00" in speakers, "the one heard first remains"


def test_people_who_were_introduced_have_their_names_and_a_stranger_does_not() -> None:
    listener = Listener({"Ann": voice(1), "Bob": voice(2)})
    assert [listener.hear(voice(number)) for number in (1, 2, 3, 1)] == ["Ann", "Bob", "SPEAKER_00", "Ann"]
    assert not listener.corrections


def test_an_introduction_that_comes_late_is_a_correction() -> None:
    listener = Listener()
    listener.hear(voice(1))
    listener.hear(voice(2))
    listener.speakers.introduce({"Ann": voice(1)})
    listener.hear(voice(1))
    assert [(each.old, each.new, each.start) for each in listener.corrections] == [("SPEAKER_00", "Ann", 0.0)]
    assert [turn.speaker for turn in listener.told] == ["Ann", "SPEAKER_01", "Ann"]


def test_a_name_that_looks_like_a_label_is_not_given_twice() -> None:
    listener = Listener({"SPEAKER_00": voice(1)})
    assert [listener.hear(voice(number)) for number in (2, 1, 2)] == ["SPEAKER_01", "SPEAKER_00", "SPEAKER_01"]


def test_no_windows_are_nobody() -> None:
    assert LiveSpeakers().hear([]) == ((), ())


# ---------------------------------------------------------------------- with ears


@pytest.fixture(scope="module")
def engine() -> VoiceprintDiarizer:
    return voiceprint.load(Catalog.load().describe("voiceprint"))


def at_turn_end(
    engine: VoiceprintDiarizer, samples: Samples, detection: TurnDetection
) -> tuple[tuple[SpeakerTurn, ...], tuple[SpeakerRelabelled, ...]]:
    """Who was said to speak when each stretch was over, and what was corrected later."""
    settings = ListeningSettings(encoding=PcmEncoding.F32LE, turn_detection=detection, diarize=True)
    session, speakers = RecognitionSession(settings), LiveSpeakers()
    turns: list[SpeakerTurn] = []
    session.append(samples.astype("<f4").tobytes())
    session.finish()
    for probability in SileroVoiceActivity().over(samples):
        session.take_windows(1)
        session.heard([float(probability)])
        for command in session.commands():
            if isinstance(command, WhoSpeaks):
                found, corrections = speakers.hear(list(_windows(engine, command)))
                turns += found
                session.voices(command.ticket, found, [SpeakerRelabelled(*dataclasses.astuple(c)) for c in corrections])
            elif isinstance(command, Conclude):
                session.segment(command.ticket, Segment("", 0.0, 0.0))
    assert session.take_windows(1) == []
    events = list(iter(session.next_event, None))
    assert session.drained, "a turn waits for speakers that were told"
    return tuple(turns), tuple(event for event in events if isinstance(event, SpeakerRelabelled))


def _windows(engine: VoiceprintDiarizer, asked: WhoSpeaks) -> Iterable[Window]:
    (result,) = engine.encode_voices(VoicesRequest(samples=asked.samples), lambda done, total: None)
    edges = [asked.start + max(edge, asked.lead) for edge in result.edges]
    vectors = result.vectors.reshape(len(result.clear), -1)
    for start, end, vector, clear in zip(edges, edges[1:], vectors, result.clear, strict=False):
        if end > start:
            yield Window(start, end, vector, clear)


@pytest.mark.parametrize("detection", [TOGETHER, OPENAI], ids=["together", "openai"])
def test_a_telephone_conversation(engine: VoiceprintDiarizer, shared_audio: Path, detection: TurnDetection) -> None:
    samples = read(shared_audio / "two-speakers.wav")
    fields = [line.split() for line in (shared_audio / "two-speakers.rttm").read_text().splitlines()]
    reference = tuple(SpeakerTurn(field[7], float(field[3]), float(field[3]) + float(field[4])) for field in fields)
    found, corrections = at_turn_end(engine, samples, detection)
    assert {turn.speaker for turn in found} == {"SPEAKER_00", "SPEAKER_01"}
    assert all({each.old, each.new} == {"SPEAKER_00", "SPEAKER_01"} for each in corrections)
    assert error_rate(reference, found, len(samples) / 16_000) <= 0.25


@pytest.mark.parametrize("voices", [CLEAR[0], CLEAR[2]])
def test_synthetic_voices(engine: VoiceprintDiarizer, voices: Sequence[str]) -> None:
    samples, reference = dialogue(voices, 1, 16)
    found, _ = at_turn_end(engine, samples, TOGETHER)
    assert len({turn.speaker for turn in found}) == len(voices)
    assert error_rate(reference, found, len(samples) / 16_000) <= 0.1


def test_one_voice_is_one_speaker(engine: VoiceprintDiarizer) -> None:
    samples, _ = conversation([("en-us", spoken("en-us", index % 10)) for index in range(12)], 5)
    found, corrections = at_turn_end(engine, samples, TOGETHER)
    assert {turn.speaker for turn in found} == {"SPEAKER_00"}
    assert not corrections
