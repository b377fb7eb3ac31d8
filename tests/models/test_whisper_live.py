"""Live turns with a model that does as a script says: when it is asked, what for, and what becomes of late answers."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pytest

from models.errors import Cancelled
from models.interfaces import HypothesisUpdate, ListenRequest, Samples, SegmentResult
from models.scheduling import ALONE, SHORTEST_PERIOD, TOGETHER, Cadence, Urgency
from models.whisper_decoding import AlignedWord, Decoded, Thresholds
from models.whisper_jobs import Glance, Glimpse, Job, Outcome
from models.whisper_live import WhisperTurn
from streaming.segmentation import Cutting, SpeechSpan
from streaming.voice_activity import SAMPLE_RATE, WINDOW
from tests.models.engines.conformance import Spoken, Steps

NOW = 1000.0
TEXT = tuple(range(1, 400))
"""What is said: word n, token n, takes a third of a second and ends at n / 3."""
PER_SECOND = 3


class LoudIsSpeech:
    """Voice activity by level."""

    def over(self, samples: Samples, stream: Any, *, last: bool = False) -> Samples:
        windows = stream.windows(samples, last=last)
        return np.where(np.abs(windows).max(axis=1, initial=0.0) > 0.1, 0.99, 0.0).astype(np.float32)


class Audio:
    """A `LiveAudio` that a test goes through window by window: `meanwhile` runs before each."""

    def __init__(self, levels: Sequence[float], pausing: Sequence[bool], meanwhile: Callable[[int], None]) -> None:
        self._windows = zip(levels, pausing, strict=True)
        self._meanwhile = meanwhile
        self._number = 0
        self.pausing = False

    def __iter__(self) -> Iterator[Samples]:
        return self

    def __next__(self) -> Samples:
        self._meanwhile(self._number)
        level, self.pausing = next(self._windows)
        self._number += 1
        return np.full(WINDOW, level, np.float32)


@dataclass
class Scripted:
    """A model that hears perfectly, and answers when it is told to; `automatic` answers at once."""

    automatic: bool = True
    cost: float = 0.01
    wrong: Callable[[Glance], Decoded | None] = lambda glance: None
    looks: list[tuple[Glance, float]] = field(default_factory=list)
    jobs: list[tuple[Job, float]] = field(default_factory=list)
    finals: list[Future[Outcome]] = field(default_factory=list)
    waiting: deque[Callable[[], None]] = field(default_factory=deque)
    clock: float = NOW

    ahead = 5
    cutting = Cutting()
    timestamp_begin = 1000
    thresholds = Thresholds()
    temperatures: tuple[float, ...] = (0.0, 0.4)
    window = 30.0
    short_glances = True

    def __post_init__(self) -> None:
        self.voice_activity: Any = LoudIsSpeech()
        self.cadence = Cadence()
        self.mel_filters = np.ones((4, 201), np.float32)

    def features(self, span: SpeechSpan) -> Any:
        return np.full((4, 3000), len(span.samples) / SAMPLE_RATE, np.float32)

    def text(self, tokens: Sequence[int]) -> str:
        return "".join(f" {token}" for token in tokens)

    def submit(self, job: Job, deadline: float) -> Future[Outcome]:
        self.jobs.append((job, deadline))
        tokens = TEXT[: int(job.seconds * PER_SECOND)]
        words = tuple(AlignedWord(f" {n}", (n,), (n - 1) / PER_SECOND, n / PER_SECOND, 0.9) for n in tokens)
        self.finals.append(self._answer(Outcome("en", Decoded(tokens, self.text(tokens), 0.0, -0.3, 0.0), words)))
        return self.finals[-1]

    def glance(self, glance: Glance, deadline: float) -> Future[Glimpse]:
        self.looks.append((glance, deadline))
        wrong = self.wrong(glance)
        first = (glance.prefix[0] if glance.prefix else self._first(glance)) - 1
        start = first / PER_SECOND
        said = TEXT[first : first + int(glance.seconds * PER_SECOND)]
        new = said[len(glance.prefix) :][: glance.room]
        words = tuple(
            AlignedWord(f" {n}", (n,), (n - 1) / PER_SECOND - start, n / PER_SECOND - start, 0.5) for n in new
        )
        decoded = wrong or Decoded(new, self.text(new), 0.0, -0.3, 0.0)
        return self._answer(Glimpse("en", decoded, words, len(new) == glance.room, self.cost))

    def _first(self, glance: Glance) -> int:
        return (glance.prompt[-1] if glance.prompt else 0) + 1

    def _answer(self, answer: Any) -> Future[Any]:
        future: Future[Any] = Future()
        self.waiting.append(lambda: future.set_result(answer) if future.set_running_or_notify_cancel() else None)
        if self.automatic:
            self.answer()
        return future

    def answer(self) -> None:
        """Answer everything that waits."""
        while self.waiting:
            self.waiting.popleft()()


Result = HypothesisUpdate | SegmentResult


def windows(seconds: float) -> int:
    return round(seconds * SAMPLE_RATE / WINDOW)


def turn(
    model: Scripted,
    levels: Sequence[float],
    pausing: Sequence[bool] | None = None,
    meanwhile: Callable[[int], None] = lambda number: None,
    on_step: Any = None,
    **request: Any,
) -> list[Result]:
    """Hear it at the pace at which it is spoken."""

    def passing(number: int) -> None:
        model.clock = NOW + number * WINDOW / SAMPLE_RATE
        meanwhile(number)

    audio = Audio(levels, pausing or [False] * len(levels), passing)
    heard = WhisperTurn(
        model,
        ListenRequest(**request),
        on_step or Steps(),
        language="en",
        prompt=(),
        clock=lambda: model.clock,
    )
    return list(heard.results(audio))


def speech(seconds: float) -> list[float]:
    return [0.5] * windows(seconds)


def silence(seconds: float) -> list[float]:
    return [0.0] * windows(seconds)


def hypotheses(results: Sequence[Result]) -> list[list[int]]:
    return [
        [int(word.text) for word in each.hypothesis.words] for each in results if isinstance(each, HypothesisUpdate)
    ]


def seen(model: Scripted) -> list[float]:
    """Seconds of the turn at which each look was taken."""
    return [due - NOW - (Urgency.FIRST_PARTIAL if number == 0 else Urgency.PARTIAL)
            for number, (_, due) in enumerate(model.looks)]  # fmt: skip


def test_words_come_in_order_and_are_never_taken_back() -> None:
    model = Scripted()
    results = turn(model, speech(20))
    texts = hypotheses(results)
    assert len(texts) > 30
    assert all(text == list(range(1, len(text) + 1)) for text in texts)
    assert len(texts[-1]) > 50
    last = results[-1]
    assert isinstance(last, SegmentResult)
    assert last.segment.text == " ".join(map(str, range(1, 61)))


def test_looks_come_a_quarter_of_a_second_apart_after_half_a_second() -> None:
    model = Scripted()
    turn(model, speech(4))
    at = seen(model)
    assert at[0] == pytest.approx(0.5, abs=0.033)
    assert np.diff(at) == pytest.approx(0.256, abs=0.001)


@pytest.mark.parametrize(
    ("cost", "turns", "period"), [(0.1, 1, 0.1 / ALONE), (0.1, 6, 0.6 / TOGETHER), (0.01, 8, 0.25)]
)
def test_what_is_dear_is_done_less_often(cost: float, turns: int, period: float) -> None:
    model = Scripted(cost=cost)
    others = [model.cadence.turn() for _ in range(turns - 1)]
    for other in others:
        other.__enter__()
    results = turn(model, speech(12))
    at = seen(model)
    assert np.diff(at[1:]).mean() == pytest.approx(period, abs=0.032)
    lags = [result.lag for result in results if isinstance(result, HypothesisUpdate)]
    assert lags[-1] == pytest.approx(period - SHORTEST_PERIOD)


def test_one_look_at_a_time_and_its_lag_is_told() -> None:
    model = Scripted(automatic=False)

    def meanwhile(number: int) -> None:
        if number in (windows(3), windows(5)):
            model.answer()

    results = turn(model, speech(6), meanwhile=meanwhile, on_step=Answering(model))
    at = seen(model)
    assert len(at) == 3
    lags = [result.lag for result in results if isinstance(result, HypothesisUpdate)]
    assert lags[:2] == [pytest.approx(3.0 - at[0], abs=0.04), pytest.approx(5.0 - at[1], abs=0.04)]


class Answering(Steps):
    """Once the audio is over, everything is answered."""

    def __init__(self, model: Scripted) -> None:
        super().__init__()
        self._model = model
        self._before = -1.0

    def __call__(self, done: float, total: float | None) -> None:
        super().__call__(done, total)
        if done == self._before:
            self._model.answer()
        self._before = done


def test_finals_are_due_before_first_looks_before_others() -> None:
    model = Scripted()
    turn(model, speech(2))
    (_, first), (_, second), *_ = model.looks
    ((_, final),) = model.jobs
    assert final < first < second
    assert Urgency.UPLOAD > Urgency.PARTIAL


def test_the_final_is_begun_when_the_pause_is_told_and_taken_if_nothing_more_is_said() -> None:
    model = Scripted()
    begun: list[int] = []
    results = turn(
        model,
        speech(2) + silence(0.5),
        [False] * windows(2) + [index >= windows(0.2) for index in range(windows(0.5))],
        meanwhile=lambda number: begun.append(len(model.jobs)),
    )
    assert begun[windows(2.1)] == 0
    assert begun[windows(2.3)] == 1
    assert len(model.jobs) == 1
    assert model.jobs[0][0].seconds == pytest.approx(2.192, abs=0.033)
    last = results[-1]
    assert isinstance(last, SegmentResult)
    assert last.segment.text == "1 2 3 4 5 6"
    assert last.segment.end == pytest.approx(2.5, abs=0.02)


def test_a_busy_machine_waits_for_the_end_of_the_turn() -> None:
    model = Scripted(cost=0.2)
    others = [model.cadence.turn() for _ in range(3)]
    for other in others:
        other.__enter__()
    begun: list[int] = []
    pauses = [False] * windows(2.2) + [True] * windows(0.3)
    results = turn(model, speech(2) + silence(0.5), pauses, meanwhile=lambda number: begun.append(len(model.jobs)))
    assert max(begun) == 0
    last = results[-1]
    assert isinstance(last, SegmentResult)
    assert last.segment.text == "1 2 3 4 5 6"


def test_a_final_that_came_too_soon_is_withdrawn_before_it_runs() -> None:
    model = Scripted(automatic=False)
    pauses = [False] * windows(2) + [False] * windows(0.2) + [True] * windows(0.2) + [False] * windows(1.0)
    withdrawn: list[bool] = []

    def meanwhile(number: int) -> None:
        if number < windows(2.2) or number == windows(3):
            model.answer()
        elif number == windows(2.6):
            withdrawn.append(model.finals[0].cancelled())

    levels = speech(2) + silence(0.4) + speech(1.0)
    results = turn(model, levels[: len(pauses)], pauses[: len(levels)], meanwhile, Answering(model))
    assert withdrawn == [True]
    assert len(model.jobs) == 2
    last = results[-1]
    assert isinstance(last, SegmentResult)
    assert len(last.segment.text.split()) == 10


def test_no_look_is_taken_in_a_pause_nor_at_silence() -> None:
    model = Scripted()
    turn(model, silence(1) + speech(2) + silence(3))
    assert max(seen(model)) <= 3.3
    assert len(model.looks) <= 8
    silent = Scripted()
    results = turn(silent, silence(5))
    assert (silent.looks, silent.jobs) == ([], [])
    assert len(results) == 1


@pytest.mark.parametrize(
    "wrong",
    [
        Decoded((1,), " 1", 0.0, -1.2, 0.0),
        Decoded((1,), " ha" * 40, 0.0, -0.1, 0.0),
        Decoded((1,), " 1", 0.0, -0.1, 0.0, looped=True),
        Decoded((1,), " 1", 0.0, -1.2, 0.9),
    ],
    ids=["unlikely", "repetitive", "looped", "silent"],
)
def test_what_is_not_to_be_trusted_does_not_touch_what_was_believed(wrong: Decoded) -> None:
    model = Scripted()
    model.wrong = lambda glance: wrong if 5 <= len(model.looks) <= 8 else None
    texts = hypotheses(turn(model, speech(6)))
    assert all(text == list(range(1, len(text) + 1)) for text in texts)
    assert len(texts) <= len(model.looks) - 4


def test_windows_stay_short_and_say_what_was_said_before_them() -> None:
    model = Scripted()
    turn(model, speech(60))
    assert max(glance.seconds for glance, _ in model.looks) < 6.0
    assert {glance.features.shape[1] for glance, _ in model.looks} <= {600, 800, 1000}
    last = model.looks[-1][0]
    assert len(last.prompt) in (24, 32)
    assert list(last.prompt) == list(range(last.prompt[0], last.prompt[0] + len(last.prompt)))
    assert last.prefix[0] == last.prompt[-1] + 1
    assert max(glance.room for glance, _ in model.looks) < 60


def test_a_window_whose_text_is_never_trusted_begins_anew() -> None:
    model = Scripted(wrong=lambda glance: Decoded((1,), " 1", 0.0, -5.0, 0.0))
    results = turn(model, speech(40))
    assert hypotheses(results) == []
    assert max(glance.seconds for glance, _ in model.looks) <= 12.5
    last = results[-1]
    assert isinstance(last, SegmentResult)
    assert last.segment.text != ""


def test_audio_that_comes_all_at_once_is_looked_at_as_if_it_was_spoken() -> None:
    model = Scripted()
    whole = np.full(10 * SAMPLE_RATE, 0.5, np.float32)
    heard = WhisperTurn(model, ListenRequest(), Steps(), language="en", prompt=(), clock=lambda: NOW)
    texts = hypotheses(list(heard.results(Spoken([whole]))))
    assert len(texts) > 20


def test_a_long_turn_is_finished_piece_by_piece() -> None:
    model = Scripted()
    results = turn(model, (speech(20) + silence(0.9)) * 4)
    last = results[-1]
    assert isinstance(last, SegmentResult)
    assert len(model.jobs) >= 3
    assert all(job.seconds <= 30 for job, _ in model.jobs)
    assert last.segment.end == pytest.approx(4 * 20.9, abs=0.2)


def test_cancelled_while_the_final_is_awaited() -> None:
    model = Scripted(automatic=False)

    class Impatient(Steps):
        def __call__(self, done: float, total: float | None) -> None:
            super().__call__(done, total)
            if model.jobs and len(self.calls) > windows(2) + 3:
                raise Cancelled("stop")

    with pytest.raises(Cancelled):
        turn(model, speech(2), on_step=Impatient())
    assert model.cadence.turns == 0
    model.answer()  # nobody hears of it


def test_what_the_model_raises_reaches_the_caller() -> None:
    model = Scripted()

    def broken(glance: Glance, deadline: float) -> Future[Glimpse]:
        future: Future[Glimpse] = Future()
        future.set_exception(RuntimeError("broken"))
        return future

    model.glance = broken  # type: ignore[method-assign]
    with pytest.raises(RuntimeError, match="broken"):
        turn(model, speech(2))
