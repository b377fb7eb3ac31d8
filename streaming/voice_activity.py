"""Who is speaking when: Silero's speech probability per 32 ms window, and turns cut from it.

Each stream's recurrent state lives outside the model: one run serves a window of many streams, and no result
depends on who else is in the run. `TurnDetector` is pure: probabilities in, events on the stream's clock out.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

SAMPLE_RATE = 16_000
WINDOW = 512
"""Samples per probability: 32 ms."""
CONTEXT = 64
"""Samples of the previous window that the model sees again."""
MODEL_PATH = Path(__file__).with_name("silero_vad.onnx")

Samples: TypeAlias = npt.NDArray[np.float32]

ONSET_WINDOWS = 4
ONSET_HITS = 3
"""Speech begins when this many of the last `ONSET_WINDOWS` probabilities reach the threshold."""
HYSTERESIS = 0.15
"""Speech ends this far below the threshold at which it began."""
FORCED_CUT_SHARE = 0.3
"""A turn that grows too long is cut at the quietest window of this last share of it."""
CUT_MEMORY = 1024
"""Windows remembered for that cut (33 s), so that a turn without a limit does not grow without one."""


class VoiceActivityState:
    """What the model and the framing remember of one stream of 16 kHz mono samples."""

    __slots__ = ("context", "rest", "state")

    def __init__(self) -> None:
        self.state: Samples = np.zeros((2, 1, 128), np.float32)
        self.context: Samples = np.zeros(CONTEXT, np.float32)
        self.rest: Samples = np.zeros(0, np.float32)

    def windows(self, samples: Samples, *, last: bool = False) -> Samples:
        """Cut the stream into windows, shape (n, 512); what is left over waits for the next call.

        `last` ends the stream: a final part of a window is filled up with silence.
        """
        joined = np.concatenate((self.rest, samples)) if len(self.rest) else samples
        if last and len(joined) % WINDOW:
            joined = np.concatenate((joined, np.zeros(-len(joined) % WINDOW, np.float32)))
        count = len(joined) // WINDOW
        # A copy: the leftover must not keep a caller's buffer alive, or change when the caller reuses it.
        self.rest = joined[count * WINDOW :].copy()
        return joined[: count * WINDOW].reshape(count, WINDOW)


class SileroVoiceActivity:
    """Silero VAD v6 (16 kHz ONNX export, MIT) on one onnxruntime thread. Any thread may call it."""

    def __init__(self, model_path: Path = MODEL_PATH) -> None:
        import onnxruntime  # takes a while to load; turn detection alone does not need it

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        # A run takes 0.1 ms every 32 ms: a thread that spins in between takes a core from everybody else.
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        options.add_session_config_entry("session.inter_op.allow_spinning", "0")
        self._session: Any = onnxruntime.InferenceSession(
            str(model_path), sess_options=options, providers=["CPUExecutionProvider"]
        )
        self._sample_rate = np.array(SAMPLE_RATE, np.int64)

    def probabilities(self, streams: Sequence[VoiceActivityState], windows: Sequence[Samples]) -> list[float]:
        """One run: the speech probability of each stream's next window, shape (512,). The states move on.

        Raises: ValueError when the counts differ, a window has another length, or a stream is there twice.
        """
        if len(streams) != len(windows) or any(window.shape != (WINDOW,) for window in windows):
            raise ValueError(f"one window of {WINDOW} samples per stream is needed")
        if len({id(stream) for stream in streams}) != len(streams):
            raise ValueError("a stream may be in a run only once: its windows depend on each other")
        if not streams:
            return []
        batch = np.empty((len(streams), CONTEXT + WINDOW), np.float32)
        for row, stream, window in zip(batch, streams, windows, strict=True):
            row[:CONTEXT] = stream.context
            row[CONTEXT:] = window
        state = np.concatenate([stream.state for stream in streams], axis=1)
        output, state = self._session.run(
            ("output", "stateN"), {"input": batch, "state": state, "sr": self._sample_rate}
        )
        for index, stream in enumerate(streams):
            stream.state = state[:, index : index + 1].copy()
            stream.context = batch[index, -CONTEXT:].copy()
        return [float(probability) for probability in output[:, 0]]

    def over_many(
        self, streams: Sequence[VoiceActivityState], blocks: Sequence[Samples], *, last: bool = False
    ) -> list[Samples]:
        """Probabilities of every window that each stream's next block, of any length, completes.

        The first windows of all streams go into one run, then all second ones, and so on.
        Raises: ValueError when the counts differ or a stream is there twice.
        """
        if len({id(stream) for stream in streams}) != len(streams):
            raise ValueError("a stream may be in a run only once: its windows depend on each other")
        windows = [stream.windows(block, last=last) for stream, block in zip(streams, blocks, strict=True)]
        results = [np.empty(len(rows), np.float32) for rows in windows]
        for step in range(max(map(len, windows), default=0)):
            active = [index for index, rows in enumerate(windows) if step < len(rows)]
            found = self.probabilities([streams[i] for i in active], [windows[i][step] for i in active])
            for index, probability in zip(active, found, strict=True):
                results[index][step] = probability
        return results

    def over(self, samples: Samples, stream: VoiceActivityState | None = None, *, last: bool | None = None) -> Samples:
        """Probabilities of the windows of a block, shape (n,).

        With a `stream`, its next block, of any length; `last` says that no other follows. Without one, the
        samples are the whole stream.
        """
        last = stream is None if last is None else last
        return self.over_many([stream or VoiceActivityState()], [samples], last=last)[0]


@dataclass(frozen=True, slots=True)
class TurnDetection:
    """When a turn begins and ends, in seconds.

    A shorter `min_speech` reports sooner, a longer one ignores more noise. `prefix_padding` and
    `trailing_padding` are the silence a turn keeps around its speech. `max_speech` bounds a turn with its
    padding; it may be infinite. Raises: ValueError for values that make no sense.
    """

    threshold: float = 0.5
    prefix_padding: float = 0.3
    silence_duration: float = 0.5
    min_speech: float = 0.25
    max_speech: float = 15.0
    trailing_padding: float = 0.25

    def __post_init__(self) -> None:
        if not 0.0 <= self.threshold <= 1.0:
            raise ValueError("threshold must be between 0 and 1")
        for name in ("prefix_padding", "silence_duration", "min_speech", "trailing_padding"):
            if not 0.0 <= getattr(self, name) < math.inf:
                raise ValueError(f"{name} must be a number of seconds, 0 or more")
        if not self.max_speech > 0.0:
            raise ValueError("max_speech must be more than 0 seconds")


PATIENT = TurnDetection(
    threshold=0.3, prefix_padding=0.3, silence_duration=1.0, min_speech=0.064, max_speech=30.0, trailing_padding=0.4
)
"""How speech is found where somebody else decides what belongs together, in a recording and between two manual commits:
sensitive, and patient with pauses. Both use the same, so that the same audio comes out as the same words."""


@dataclass(frozen=True, slots=True)
class SpeechStarted:
    """A turn begins at `at_sample`, padding included; its speech was first heard at `speech_sample`."""

    at_sample: int
    speech_sample: int


@dataclass(frozen=True, slots=True)
class SpeechStopped:
    """The turn is over at `at_sample`, padding included; `forced` when it was not silence that ended it."""

    at_sample: int
    forced: bool = False


TurnEvent: TypeAlias = SpeechStarted | SpeechStopped


class TurnDetector:
    """Turns from a stream of probabilities, with hysteresis. Settings may be replaced between any two pushes.

    Events alternate, starting with `SpeechStarted`, and never go back: turns do not overlap.
    """

    def __init__(self, settings: TurnDetection | None = None) -> None:
        self.settings = settings or TurnDetection()
        self._now = 0  # samples heard
        self._free_from = 0  # no turn may start before this sample
        self._start: int | None = None  # first sample of the open turn
        self._speech: int | None = None  # where speech was first heard, of the open or a possible turn
        self._silence: int | None = None  # where the silence that may end it began
        self._voiced = 0  # windows of speech in a possible turn
        self._recent: deque[float] = deque(maxlen=ONSET_WINDOWS)
        self._heard: deque[float] = deque(maxlen=CUT_MEMORY)

    @property
    def now(self) -> int:
        """Samples heard so far; the clock of the events."""
        return self._now

    @property
    def in_speech(self) -> bool:
        """Whether a turn is open: started and not stopped."""
        return self._start is not None

    @property
    def trailing_silence(self) -> float:
        """Seconds of silence at the end of the open turn so far; 0 while somebody speaks."""
        if self._start is None or self._silence is None:
            return 0.0
        return (self._now - self._silence) / SAMPLE_RATE

    @property
    def silent_since(self) -> int | None:
        """The sample at which the silence at the end of the open turn began; None while somebody speaks."""
        return None if self._start is None else self._silence

    @property
    def keep_from(self) -> int:
        """No event to come needs audio before this sample (as long as the settings stay)."""
        if self._start is not None:
            return self._start
        onset = self._now - (ONSET_WINDOWS - 1) * WINDOW if self._speech is None else self._speech
        return self._padded_start(onset)

    def push(self, probability: float) -> list[TurnEvent]:
        """Take the probability of the next window."""
        self._now += WINDOW
        self._heard.append(probability)
        if self._speech is None:
            self._listen(probability)
        else:
            self._follow(probability)
        if self._start is not None:
            return self._end_turn(self._start)
        return self._begin_turn()

    def force_stop(self) -> list[TurnEvent]:
        """End the turn here, as a manual commit does. Speech too short to be reported yet becomes a turn."""
        events: list[TurnEvent] = []
        if self._start is None and self._speech is not None:
            events.append(self._started(self._padded_start(self._speech), self._speech))
        if self._start is not None:
            events.append(self._stopped(self._now, forced=True))
        return events

    def finish(self) -> list[TurnEvent]:
        """The stream is over: end the open turn, if there is one."""
        if self._start is None:
            return []
        return [self._stopped(min(self._now, self._silence_end()), forced=False)]

    def reset(self) -> None:
        """Forget all speech heard so far, an open turn too, without an event. The clock goes on."""
        self._free_from = self._now
        self._start = self._speech = self._silence = None
        self._recent.clear()

    # ------------------------------------------------------------------ inside

    def _listen(self, probability: float) -> None:
        """Nobody speaks: look for the onset of a possible turn."""
        self._recent.append(probability)
        hits = [hit >= self.settings.threshold for hit in self._recent]
        if hits.count(True) >= ONSET_HITS:
            self._speech = max(self._free_from, self._now - (len(hits) - hits.index(True)) * WINDOW)
            self._silence = None
            self._voiced = hits.count(True)

    def _follow(self, probability: float) -> None:
        """Somebody speaks, or may: look for silence. Between the two thresholds nothing changes."""
        if probability >= self.settings.threshold:
            self._silence = None
        elif probability < self.settings.threshold - HYSTERESIS and self._silence is None:
            self._silence = self._now - WINDOW
        if self._silence is None:
            self._voiced += 1

    def _begin_turn(self) -> list[TurnEvent]:
        if self._speech is None:
            return []
        if self._voiced * WINDOW >= self.settings.min_speech * SAMPLE_RATE:
            return [self._started(self._padded_start(self._speech), self._speech)]
        if self._silence_is_over():
            self._speech = self._silence = None
            self._recent.clear()
        return []

    def _end_turn(self, start: int) -> list[TurnEvent]:
        if self._silence_is_over():
            return [self._stopped(min(self._now, self._silence_end()), forced=False)]
        if self._now + WINDOW - start <= self.settings.max_speech * SAMPLE_RATE:
            return []
        late = list(self._heard)[-math.ceil((self._now - start) // WINDOW * FORCED_CUT_SHARE) :]
        # Of equally quiet windows the last one: it makes the longest turn.
        after = min(range(len(late)), key=lambda after: late[-1 - after])
        cut = self._now - after * WINDOW - WINDOW // 2
        silence = self._silence
        events: list[TurnEvent] = [self._stopped(cut, forced=True)]
        if any(probability >= self.settings.threshold for probability in late[-1 - after :]):
            events.append(self._started(cut, cut))
            self._silence = silence if silence is not None and silence > cut else None
        return events

    def _padded_start(self, speech: int) -> int:
        return max(self._free_from, speech - round(self.settings.prefix_padding * SAMPLE_RATE))

    def _silence_is_over(self) -> bool:
        return (
            self._silence is not None
            and self._heard[-1] < self.settings.threshold - HYSTERESIS
            and self._now - self._silence >= self.settings.silence_duration * SAMPLE_RATE
        )

    def _silence_end(self) -> int:
        """How far into its trailing silence the turn reaches."""
        if self._silence is None:
            return self._now
        return self._silence + round(self.settings.trailing_padding * SAMPLE_RATE)

    def _started(self, at_sample: int, speech_sample: int) -> SpeechStarted:
        self._start, self._speech = at_sample, speech_sample
        return SpeechStarted(at_sample, speech_sample)

    def _stopped(self, at_sample: int, *, forced: bool) -> SpeechStopped:
        self._free_from = at_sample
        self._start = self._speech = self._silence = None
        self._recent.clear()
        return SpeechStopped(at_sample, forced)


def find_turns(
    probabilities: Iterable[float],
    detection: TurnDetection | None = None,
    *,
    total_samples: int | None = None,
) -> Iterator[tuple[int, int]]:
    """Turns of a whole recording as (start, end) samples, from the probabilities of its windows.

    `total_samples` is the recording's length, where its last window was not full.
    """
    detector = TurnDetector(detection)

    def events() -> Iterator[TurnEvent]:
        for probability in probabilities:
            yield from detector.push(float(probability))
        yield from detector.finish()

    start = 0
    for event in events():
        if isinstance(event, SpeechStarted):
            start = event.at_sample
        else:
            yield start, event.at_sample if total_samples is None else min(event.at_sample, total_samples)
