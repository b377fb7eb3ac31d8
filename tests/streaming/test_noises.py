"""Sounds that are no speech, through a session with the real voice activity model: nobody is heard, nothing is asked.

`python -m tests.bench --only quiet` has ten minutes of each, and a recogniser.
"""

from __future__ import annotations

import numpy as np
import pytest

from media.dialects.together_realtime import TURN_DETECTION
from streaming.audio import PcmEncoding
from streaming.endpointing import EndOfTurn
from streaming.listening_events import Committed, Completed, JudgeTurn, Listen, ListeningSettings
from streaming.recognition import RecognitionSession
from streaming.transcript import Segment
from streaming.voice_activity import SileroVoiceActivity, TurnDetection
from tests.models.engines.sentences import say
from tests.streaming.noises import NOISES, Samples, fan

SETTINGS = {
    "together": ListeningSettings(PcmEncoding.F32LE, turn_detection=TURN_DETECTION, diarize=True),
    "openai": ListeningSettings(PcmEncoding.F32LE, turn_detection=TurnDetection(min_speech=0.1), eager=0.3),
    "by meaning": ListeningSettings(PcmEncoding.F32LE, turn_detection=TURN_DETECTION, end_of_turn=EndOfTurn()),
    "by hand": ListeningSettings(PcmEncoding.F32LE, turn_detection=None),
}


@pytest.fixture(scope="module")
def model() -> SileroVoiceActivity:
    return SileroVoiceActivity()


def hear(session: RecognitionSession, model: SileroVoiceActivity, samples: Samples) -> list[object]:
    """Everything the session asks for while it hears the samples to their end."""
    session.append(samples.astype("<f4").tobytes())
    session.finish()
    asked: list[object] = []
    while windows := session.take_windows(1):
        session.heard(model.probabilities([session.voice], windows))
        for command in session.commands():
            asked.append(command)
            if isinstance(command, JudgeTurn):
                session.turn_judged(command.question, None)
    return asked


@pytest.mark.parametrize("level", [0.1, 1.0, 2.0])
@pytest.mark.parametrize("noise", NOISES)
def test_nobody_is_heard_in_a_noise(model: SileroVoiceActivity, noise: str, level: float) -> None:
    samples = np.clip(NOISES[noise](12.0) * level, -1, 1).astype(np.float32)
    for settings in SETTINGS.values():
        session = RecognitionSession(settings)
        assert hear(session, model, samples) == []
        assert session.next_event() is None
        assert session.drained


@pytest.mark.parametrize("settings", ["together", "openai"])
def test_a_sentence_beside_a_fan_is_one_turn(model: SileroVoiceActivity, settings: str) -> None:
    speech = say("en-us", 0, 1)
    samples = fan(len(speech) / 16_000 + 4.0)
    samples[32_000 : 32_000 + len(speech)] += speech
    session = RecognitionSession(SETTINGS[settings])
    asked = hear(session, model, samples)
    assert [type(command) for command in asked].count(Listen) == 1
    session.segment(1, Segment("", 0.0, 0.0))
    for ticket in range(1, 10):
        session.voices(ticket, ())
    events = list(iter(session.next_event, None))
    (committed,) = (event for event in events if isinstance(event, Committed))
    (completed,) = (event for event in events if isinstance(event, Completed))
    assert completed.item_id == committed.item_id
    assert 1.5 < completed.start < 2.3
    assert completed.start + completed.duration < len(speech) / 16_000 + 3.0
