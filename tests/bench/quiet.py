"""Ten minutes of each sound that is no speech: how many turns a session hears in it, and how many words it writes down.

Words are those of a recording committed by hand, where the sensitive settings of voice activity decide what a
recogniser hears, and of turns, where there are any.
"""

from __future__ import annotations

import anyio

from models.engines.pocketsphinx import load
from models.interfaces import ListenRequest, SegmentResult
from streaming.audio import PcmEncoding, Samples
from streaming.listening_events import Conclude, Hear, ListeningSettings
from streaming.recognition import RecognitionSession
from streaming.voice_activity import SileroVoiceActivity, TurnDetection
from tests.bench.bench import Bench
from tests.bench.recording import LISTENING_CARD
from tests.bench.report import Figure, Target
from tests.streaming.noises import NOISES

NONE = Target(0.0, "max")
SENSITIVE = TurnDetection(threshold=0.3, min_speech=0.1)
MODES = {"turns": ListeningSettings(PcmEncoding.F32LE, turn_detection=SENSITIVE),
         "by hand": ListeningSettings(PcmEncoding.F32LE, turn_detection=None)}  # fmt: skip


async def measure(bench: Bench) -> Figure:
    """Turns and words per sound."""
    seconds = float(bench.amount(600, 30))
    figure = Figure("quiet", "Turns and words where nobody speaks", {"seconds of each": seconds})
    for name, make in NOISES.items():
        samples = make(seconds)
        turns, words = await anyio.to_thread.run_sync(_heard, samples, MODES["turns"])
        _, more = await anyio.to_thread.run_sync(_heard, samples, MODES["by hand"])
        figure.add(f"{name}: turns", "", [float(turns)], NONE)
        figure.add(f"{name}: words", "", [float(words + more)], NONE)
    return figure


def _heard(samples: Samples, settings: ListeningSettings) -> tuple[int, int]:
    """Utterances in the samples, and words that the recogniser makes of them."""
    session, model, engine = RecognitionSession(settings), SileroVoiceActivity(), load(LISTENING_CARD)
    session.append(samples.astype("<f4").tobytes())
    session.finish()
    blocks: list[Samples] = []
    turns = words = 0
    while windows := session.take_windows(1):
        session.heard(model.probabilities([session.voice], windows))
        for command in session.commands():
            if isinstance(command, Hear):
                blocks.append(command.samples)
            elif isinstance(command, Conclude):
                turns += 1
                words += _words(engine.listen(ListenRequest("en"), iter(blocks), lambda done, total: None))
                blocks = []
    return turns, words


def _words(results: object) -> int:
    found = [each for each in results if isinstance(each, SegmentResult)]  # type: ignore[attr-defined]
    return len(found[-1].segment.text.split())
