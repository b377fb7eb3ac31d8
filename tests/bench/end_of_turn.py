"""Is a turn over? What the embedded judge makes of sentences that are whole, and of the same ones cut short.

A sentence is cut in the middle of its melody, at the end of a word; a fragment are the same words spoken as if they
were all, so that only the words can tell. The weights of the melody come from other voices and other sentences; the
weight of a full stop was chosen with these in view. `SONOREEL_END_OF_TURN_MODEL` names a smart-turn v3 file to compare.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import anyio
import numpy as np

from models.catalog import Catalog
from models.engines import espeak, pocketsphinx
from models.interfaces import ListenRequest, SegmentResult, SpeechRequest, WordTiming
from streaming.audio import Resampler, Samples
from streaming.end_of_turn import HeuristicJudge
from streaming.endpointing import ASK_AFTER, EndOfTurnJudge, Pause
from streaming.smart_turn import SmartTurn
from tests.bench.bench import Bench
from tests.bench.recording import LISTENING_CARD
from tests.bench.report import Figure, Target
from tests.models.engines.turn_phrases import PHRASES

VOICES = ("en-us+m7", "en-gb", "en-us+f5")
SAMPLE_RATE = 16_000
AUDIBLE = 0.003
RECALL_TARGET = Target(0.8, at_least=True)
PRECISION_TARGET = Target(0.85, at_least=True)
JUDGE_TARGET = Target(30.0)


@dataclass(frozen=True, slots=True)
class _Case:
    kind: str
    text: str
    samples: Samples


async def measure(bench: Bench) -> Figure:
    """Share of verdicts that are right, with the words as they were written, as they were recognised, and unknown."""
    phrases = PHRASES[1::2][: bench.amount(18, 6)]
    voices = VOICES[: bench.amount(3, 1)]
    cases = await anyio.to_thread.run_sync(_cases, voices, phrases)
    figure = Figure("end_of_turn", "Whole sentences and cut ones", {"phrases": len(phrases), "voices": len(voices)})
    engine = await anyio.to_thread.run_sync(pocketsphinx.load, LISTENING_CARD)
    judge = HeuristicJudge()
    heard = [await anyio.to_thread.run_sync(_recognised, engine, case) for case in cases]
    _add(figure, "words as written", judge, cases, lambda index: cases[index].text, RECALL_TARGET, PRECISION_TARGET)
    _add(figure, "words as recognised", judge, cases, lambda index: heard[index])
    _add(figure, "melody alone", judge, cases, lambda index: "")
    if path := os.environ.get("SONOREEL_END_OF_TURN_MODEL"):
        _add(figure, "smart-turn", SmartTurn(Path(path)), cases, lambda index: "")
    return figure


def _add(
    figure: Figure,
    name: str,
    judge: EndOfTurnJudge,
    cases: list[_Case],
    text: Callable[[int], str],
    recall: Target | None = None,
    precision: Target | None = None,
) -> None:
    began = time.perf_counter()
    over = [judge.probability(Pause(case.samples, text(index), "en")) >= 0.5 for index, case in enumerate(cases)]
    spent = 1000 * (time.perf_counter() - began) / len(cases)
    share = {
        kind: float(np.mean([said for said, case in zip(over, cases, strict=True) if case.kind == kind]))
        for kind in ("whole", "cut", "fragment")
    }
    figure.add(f"{name}: whole ones found (recall)", "", [share["whole"]], recall)
    figure.add(f"{name}: precision against cut ones", "", [share["whole"] / (share["whole"] + share["cut"])], precision)
    figure.add(f"{name}: cut ones taken for whole", "", [share["cut"]])
    figure.add(f"{name}: fragments taken for whole", "", [share["fragment"]])
    figure.add(f"{name}: one verdict", "ms", [spent], JUDGE_TARGET if precision else None)


def _cases(voices: tuple[str, ...], phrases: tuple[str, ...]) -> list[_Case]:
    generator = np.random.default_rng(0)
    cases = []
    for voice in voices:
        for phrase in phrases:
            whole, words = _say(voice, phrase)
            cut = int(generator.integers(max(2, len(words) // 3), len(words) - 1))
            text = phrase[: words[cut].end_char]
            cases.append(_Case("whole", phrase, _with_pause(whole)))
            cases.append(_Case("cut", text, _with_pause(whole[: round(words[cut].end * SAMPLE_RATE)])))
            cases.append(_Case("fragment", text, _with_pause(_say(voice, text)[0])))
    return cases


def _say(voice: str, text: str) -> tuple[Samples, list[WordTiming]]:
    card = Catalog.load().describe("espeak-ng")
    resampler, words = Resampler(card.sample_rate, SAMPLE_RATE), list[WordTiming]()
    parts = []
    for chunk in espeak.load(card).synthesize(SpeechRequest(text, voice), lambda done, total: None):
        parts.append(resampler.process(chunk.samples))
        words += chunk.words
    return np.concatenate((*parts, resampler.finish())), words


def _with_pause(samples: Samples) -> Samples:
    """Without the silence at the end, but for as much as there is when a judge is asked, with a little noise."""
    end = int(np.flatnonzero(np.abs(samples) > AUDIBLE)[-1]) + 1
    noise = np.random.default_rng(0).normal(0, 1e-4, round(ASK_AFTER * SAMPLE_RATE))
    return np.concatenate([samples[:end], noise.astype(np.float32)])


def _recognised(engine: pocketsphinx.PocketSphinxTranscriber, case: _Case) -> str:
    results = engine.listen(ListenRequest("en"), iter([case.samples]), lambda done, total: None)
    return next(each.segment.text for each in results if isinstance(each, SegmentResult))
