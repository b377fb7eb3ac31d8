"""What every engine of a task must do, whatever it sounds or hears like.

An engine's test module subclasses the suite of its task and gives it `engine` and `card` fixtures (and a `speech`
recording where one is heard), so an engine is conformant when the suite passes. Nothing here asks how well it does it.
"""

from __future__ import annotations

import itertools
import wave
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import pytest

from models.catalog import Card
from models.chunked_stream import ChunkedStream
from models.errors import Cancelled, InvalidInput
from models.interfaces import (
    HypothesisUpdate,
    ListenRequest,
    LiveTranscriber,
    MediaInfo,
    OnStep,
    Samples,
    SegmentResult,
    SpeechChunk,
    SpeechRequest,
    SpeechSynthesizer,
    Transcriber,
    TranscriptionRequest,
    WordTiming,
)

TEXT = "The quick brown fox jumps over the lazy dog. It was not amused, was it?"
SAMPLE_RATE = 16_000
ROUNDING = 1e-6

Stream = TypeVar("Stream", bound=ChunkedStream)


class Steps:
    """An `on_step` that remembers what it was told, and cancels at the step it is asked to."""

    def __init__(self, cancel_at: int | None = None) -> None:
        self.calls: list[tuple[float, float | None]] = []
        self._cancel_at = cancel_at

    def __call__(self, done: float, total: float | None) -> None:
        self.calls.append((done, total))
        if self._cancel_at is not None and len(self.calls) >= self._cancel_at:
            raise Cancelled("stop")

    def assert_monotonic(self) -> None:
        done = [call[0] for call in self.calls]
        assert done == sorted(done)
        assert all(total is None or done <= total + ROUNDING for done, total in self.calls)


def speak(
    engine: SpeechSynthesizer, request: SpeechRequest, on_step: OnStep | None = None
) -> tuple[Samples, list[WordTiming]]:
    """All the audio of a request, and its words."""
    chunks = list(engine.synthesize(request, on_step or Steps()))
    empty = [np.zeros(0, np.float32)]
    return np.concatenate([c.samples for c in chunks] or empty), [word for c in chunks for word in c.words]


def write_wav(path: Path, samples: Samples, sample_rate: int = SAMPLE_RATE) -> Path:
    with wave.open(str(path), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(sample_rate)
        file.writeframes((np.clip(samples, -1, 1) * 32767).astype("<i2").tobytes())
    return path


class Spoken:
    """A `LiveAudio` of blocks; in those from number `pause` on the speaker may be done."""

    def __init__(self, blocks: Iterable[Samples], pause: int | None = None) -> None:
        self._blocks = enumerate(blocks)
        self._pause = pause
        self.pausing = False

    def __iter__(self) -> Spoken:
        return self

    def __next__(self) -> Samples:
        number, block = next(self._blocks)
        self.pausing = self._pause is not None and number >= self._pause
        return block


def blocks(samples: Samples, size: int = SAMPLE_RATE // 10) -> Spoken:
    """Audio as a live client sends it."""
    return Spoken(samples[at : at + size] for at in range(0, len(samples), size))


def noise(seconds: float, level: float) -> Samples:
    generator = np.random.default_rng(1)
    return (generator.standard_normal(round(seconds * SAMPLE_RATE)) * level).astype(np.float32)


class SpeechConformance:
    """Give it fixtures `engine` and `card`."""

    def test_chunks_are_mono_float32_in_range_at_the_cards_rate(self, engine: SpeechSynthesizer, card: Card) -> None:
        chunks = list(engine.synthesize(SpeechRequest(TEXT, card.default_voice), Steps()))
        assert chunks
        for chunk in chunks:
            assert isinstance(chunk, SpeechChunk)
            assert chunk.samples.dtype == np.float32
            assert chunk.samples.ndim == 1
            assert len(chunk.samples)
            assert np.isfinite(chunk.samples).all()
            assert np.abs(chunk.samples).max() <= 1.0
            assert chunk.sample_rate == card.sample_rate
        assert np.abs(np.concatenate([chunk.samples for chunk in chunks])).max() > 0.01

    def test_words_are_in_order_inside_the_text_and_the_audio(self, engine: SpeechSynthesizer, card: Card) -> None:
        audio, words = speak(engine, SpeechRequest(TEXT, card.default_voice))
        if not card.word_timestamps:  # none is better than a guess
            assert words == []
            return
        assert [TEXT[word.start_char : word.end_char].strip(".,?") for word in words] == [
            word.strip(".,?") for word in TEXT.split()
        ]
        duration = len(audio) / card.sample_rate
        ends = [(0, 0.0), *((word.end_char, word.end) for word in words)]
        for (end_char, end), word in zip(ends, words, strict=False):
            assert end_char <= word.start_char < word.end_char <= len(TEXT)
            assert end - ROUNDING <= word.start <= word.end <= duration + ROUNDING
        assert words[-1].end > duration / 2

    def test_progress_never_goes_back(self, engine: SpeechSynthesizer, card: Card) -> None:
        steps = Steps()
        speak(engine, SpeechRequest(TEXT, card.default_voice), steps)
        assert steps.calls
        steps.assert_monotonic()

    def test_every_openai_voice_speaks(self, engine: SpeechSynthesizer, card: Card) -> None:
        assert card.openai_voices
        for voice in card.openai_voices.values():
            audio, _ = speak(engine, SpeechRequest("Hello.", voice))
            assert np.abs(audio).max() > 0.01, voice

    def test_voices_have_distinct_ids_and_can_speak(self, engine: SpeechSynthesizer, card: Card) -> None:
        voices = engine.voices()
        ids = [voice.id for voice in voices]
        assert len(set(ids)) == len(ids)
        assert card.default_voice in ids
        for voice in (voices[0], voices[-1]):
            assert len(speak(engine, SpeechRequest("Hello.", voice.id))[0])

    def test_the_same_request_gives_the_same_audio(self, engine: SpeechSynthesizer, card: Card) -> None:
        request = SpeechRequest(TEXT, card.default_voice)
        first, words = speak(engine, request)
        speak(engine, SpeechRequest("Something else in between.", card.default_voice, speed=1.5))
        again, words_again = speak(engine, request)
        assert np.array_equal(first, again)
        assert words == words_again

    def test_closing_stops_the_work(self, engine: SpeechSynthesizer, card: Card) -> None:
        steps = Steps()
        chunks = engine.synthesize(SpeechRequest(TEXT, card.default_voice), steps)
        next(chunks)
        chunks.close()  # type: ignore[attr-defined]  # engines are generators
        known = len(steps.calls)
        assert list(chunks) == []
        speak(engine, SpeechRequest("Hello.", card.default_voice))
        assert len(steps.calls) == known

    @pytest.mark.parametrize("cancel_at", [1, 2])
    def test_cancelled_from_on_step_reaches_the_caller(
        self, engine: SpeechSynthesizer, card: Card, cancel_at: int
    ) -> None:
        request = SpeechRequest(TEXT, card.default_voice)
        whole, _ = speak(engine, request)
        chunks: list[SpeechChunk] = []
        with pytest.raises(Cancelled):
            chunks.extend(engine.synthesize(request, Steps(cancel_at)))
        assert sum(len(chunk.samples) for chunk in chunks) < len(whole)
        after, _ = speak(engine, request)
        assert len(after) == len(whole)

    @pytest.mark.parametrize(
        "text", ["", " ", "\n\t ", "...", "!?", "-", "😀", "👩‍👩‍👧‍👦🇫🇷", "\x00\x01", "<b>&</b>", "\ud800"]
    )
    def test_text_without_words_is_harmless(self, engine: SpeechSynthesizer, card: Card, text: str) -> None:
        audio, words = speak(engine, SpeechRequest(text, card.default_voice))
        assert len(audio) < 10 * card.sample_rate
        assert all(0 <= word.start_char < word.end_char <= len(text) for word in words)

    def test_mixed_scripts_keep_their_offsets(self, engine: SpeechSynthesizer, card: Card) -> None:
        text = "naïve café 𝒳 😀 Привет 你好 مرحبا e\u0301te\u0301 — done"
        audio, words = speak(engine, SpeechRequest(text, card.default_voice))
        assert len(audio)
        if card.word_timestamps:
            spoken = [text[word.start_char : word.end_char] for word in words]
            assert spoken[:2] == ["naïve", "café"]
            assert spoken[-1] == "done"

    def test_long_text_is_spoken_to_its_end_and_longer_is_refused(self, engine: SpeechSynthesizer, card: Card) -> None:
        text = ("word " * (card.max_input_chars // 5))[: min(card.max_input_chars, 3000)].strip()
        steps = Steps()
        _, words = speak(engine, SpeechRequest(text, card.default_voice, speed=2.0), steps)
        if card.word_timestamps:
            assert words[-1].end_char == len(text)
        with pytest.raises(InvalidInput) as refusal:
            speak(engine, SpeechRequest("a" * (card.max_input_chars + 1), card.default_voice))
        assert refusal.value.field == "text"

    @pytest.mark.parametrize("voice", ["no-such-voice", "../../etc/passwd", "\x00"])
    def test_unknown_voice_is_refused(self, engine: SpeechSynthesizer, voice: str) -> None:
        with pytest.raises(InvalidInput) as refusal:
            speak(engine, SpeechRequest("Hello.", voice))
        assert refusal.value.field == "voice"

    @pytest.mark.parametrize("speed", [0.0, 0.1, -1.0, 4.1, float("nan"), float("inf")])
    def test_impossible_speed_is_refused(self, engine: SpeechSynthesizer, card: Card, speed: float) -> None:
        with pytest.raises(InvalidInput) as refusal:
            speak(engine, SpeechRequest("Hello.", card.default_voice, speed=speed))
        assert refusal.value.field == "speed"

    def test_faster_is_shorter(self, engine: SpeechSynthesizer, card: Card) -> None:
        lengths = [len(speak(engine, SpeechRequest(TEXT, card.default_voice, speed=s))[0]) for s in (0.5, 1, 2, 4)]
        assert lengths == sorted(lengths, reverse=True)


class TranscriptionConformance:
    """Give it fixtures `engine` and `card`, and `speech`: 16 kHz samples of somebody saying several words."""

    def test_facts_first_then_ordered_segments_inside_them(
        self, engine: Transcriber, card: Card, speech: Samples, tmp_path: Path
    ) -> None:
        gap = np.zeros(2 * SAMPLE_RATE, np.float32)
        path = write_wav(tmp_path / "speech.wav", np.concatenate((speech, gap, speech)))
        steps = Steps()
        facts, *results = engine.transcribe(TranscriptionRequest(path=str(path), word_timestamps=True), steps)
        assert isinstance(facts, MediaInfo)
        assert facts.duration == pytest.approx((2 * len(speech) + len(gap)) / SAMPLE_RATE, abs=0.05)
        segments = [result.segment for result in results if isinstance(result, SegmentResult)]
        assert len(segments) == len(results) >= 2
        before = 0.0
        for segment in segments:
            assert before - ROUNDING <= segment.start < segment.end <= facts.duration + ROUNDING
            assert segment.text == segment.text.strip() != ""
            if segment.words or card.word_timestamps:
                assert " ".join(word.text for word in segment.words) == segment.text
            last = segment.start
            for word in segment.words:
                assert last - ROUNDING <= word.start <= word.end <= segment.end + ROUNDING
                last = word.end
            before = segment.end
        assert segments[-1].end > (len(speech) + len(gap)) / SAMPLE_RATE
        steps.assert_monotonic()
        assert steps.calls[-1][0] == pytest.approx(facts.duration)

    def test_no_words_unless_asked_for(self, engine: Transcriber, speech: Samples, tmp_path: Path) -> None:
        path = write_wav(tmp_path / "speech.wav", speech)
        results = list(engine.transcribe(TranscriptionRequest(path=str(path)), Steps()))[1:]
        assert results
        assert all(isinstance(result, SegmentResult) and not result.segment.words for result in results)

    @pytest.mark.parametrize("sound", [noise(2, 0.0), noise(2, 0.003), noise(2, 0.1)], ids=["silence", "faint", "loud"])
    def test_silence_and_noise_hold_no_words(self, engine: Transcriber, sound: Samples, tmp_path: Path) -> None:
        path = write_wav(tmp_path / "sound.wav", sound)
        facts, *results = engine.transcribe(TranscriptionRequest(path=str(path)), Steps())
        assert isinstance(facts, MediaInfo)
        assert results == []

    @pytest.mark.parametrize(
        "content", [b"", b"not audio at all", b"RIFF\x00\x00\x00\x00WAVEfmt ", b"fLaC" + bytes(100)]
    )
    def test_what_is_no_audio_is_refused(self, engine: Transcriber, tmp_path: Path, content: bytes) -> None:
        path = tmp_path / "upload"
        path.write_bytes(content)
        with pytest.raises(InvalidInput) as refusal:
            list(engine.transcribe(TranscriptionRequest(path=str(path)), Steps()))
        assert refusal.value.field == "file"

    def test_cancelled_from_on_step_reaches_the_caller(
        self, engine: Transcriber, speech: Samples, tmp_path: Path
    ) -> None:
        request = TranscriptionRequest(path=str(write_wav(tmp_path / "speech.wav", speech)))
        whole = Steps()
        expected = list(engine.transcribe(request, whole))
        for cancel_at in (1, len(whole.calls) // 2):
            with pytest.raises(Cancelled):
                list(engine.transcribe(request, Steps(cancel_at)))
        assert list(engine.transcribe(request, Steps())) == expected

    def test_a_language_it_does_not_know_is_refused(self, engine: Transcriber, speech: Samples, tmp_path: Path) -> None:
        path = str(write_wav(tmp_path / "speech.wav", speech))
        with pytest.raises(InvalidInput) as refusal:
            list(engine.transcribe(TranscriptionRequest(path=path, language="tlh"), Steps()))
        assert refusal.value.field == "language"


class LiveConformance:
    """Give it fixtures `engine` and `card`, and `speech`: 16 kHz samples of somebody saying several words."""

    def test_hypotheses_then_one_segment_over_the_turn(self, engine: LiveTranscriber, speech: Samples) -> None:
        steps = Steps()
        *updates, last = engine.listen(ListenRequest(), blocks(speech), steps)
        assert updates
        assert all(isinstance(update, HypothesisUpdate) for update in updates)
        beliefs = [update.hypothesis for update in updates if isinstance(update, HypothesisUpdate)]
        assert all(one != other for one, other in zip(beliefs, beliefs[1:], strict=False))
        assert isinstance(last, SegmentResult)
        segment = last.segment
        assert segment.start == 0.0
        assert segment.end == pytest.approx(len(speech) / SAMPLE_RATE)
        assert segment.text == " ".join(word.text for word in segment.words) != ""
        before = 0.0
        for word in segment.words:
            assert before - ROUNDING <= word.start <= word.end <= segment.end + ROUNDING
            before = word.end
        steps.assert_monotonic()

    def test_a_hypothesis_comes_before_the_audio_ends(self, engine: LiveTranscriber, speech: Samples) -> None:
        given = 0

        def counted() -> Iterator[Samples]:
            nonlocal given
            for block in blocks(speech):
                given += 1
                yield block

        turn = engine.listen(ListenRequest(), Spoken(counted()), Steps())
        assert isinstance(next(turn), HypothesisUpdate)
        assert given < len(list(blocks(speech)))
        turn.close()  # type: ignore[attr-defined]  # engines are generators

    def test_how_the_audio_was_cut_does_not_matter(self, engine: LiveTranscriber, speech: Samples) -> None:
        results = [
            list(engine.listen(ListenRequest(), blocks(speech, size), Steps()))[-1] for size in (317, 1600, len(speech))
        ]
        assert results[0] == results[1] == results[2]

    @pytest.mark.parametrize("length", [0, 1, 100, 1601])
    def test_next_to_no_audio_still_gets_its_segment(self, engine: LiveTranscriber, length: int) -> None:
        (result,) = engine.listen(ListenRequest(), blocks(np.zeros(length, np.float32)), Steps())
        assert isinstance(result, SegmentResult)
        assert result.segment.text == ""
        assert result.segment.end == pytest.approx(length / SAMPLE_RATE)

    def test_silence_is_no_words(self, engine: LiveTranscriber) -> None:
        *_, result = engine.listen(ListenRequest(), blocks(np.zeros(SAMPLE_RATE, np.float32)), Steps())
        assert isinstance(result, SegmentResult)
        assert result.segment.text == ""

    def test_cancelled_mid_way_leaves_nothing_behind(self, engine: LiveTranscriber, speech: Samples) -> None:
        expected = list(engine.listen(ListenRequest(), blocks(speech), Steps()))[-1]
        loud = noise(1.5, 0.3)
        with pytest.raises(Cancelled):
            list(engine.listen(ListenRequest(), blocks(loud), Steps(cancel_at=12)))
        turn = engine.listen(ListenRequest(), blocks(speech), Steps())
        next(turn)
        turn.close()  # type: ignore[attr-defined]  # engines are generators
        assert list(engine.listen(ListenRequest(), blocks(speech), Steps()))[-1] == expected

    def test_a_language_it_does_not_know_is_refused(self, engine: LiveTranscriber, speech: Samples) -> None:
        with pytest.raises(InvalidInput) as refusal:
            list(engine.listen(ListenRequest(language="tlh"), blocks(speech), Steps()))
        assert refusal.value.field == "language"


class StreamConformance(LiveConformance):
    """Of a recogniser that hears every chunk once; `begin` begins one of its streams."""

    def begin(self, engine: Any) -> ChunkedStream:
        """A stream as a live turn has it."""
        stream: ChunkedStream = engine._turn()
        return stream

    def test_words_are_never_taken_back_and_only_the_last_one_grows(
        self, engine: LiveTranscriber, speech: Samples
    ) -> None:
        *updates, last = engine.listen(ListenRequest(), blocks(speech), Steps())
        assert isinstance(last, SegmentResult)
        beliefs = [update.hypothesis.words for update in updates if isinstance(update, HypothesisUpdate)]
        for before, after in itertools.pairwise([*beliefs, last.segment.words]):
            assert after[: len(before) - 1] == before[:-1]
            assert after[len(before) - 1].text.startswith(before[-1].text)

    def test_a_turn_of_minutes_keeps_none_of_its_audio(self, engine: LiveTranscriber, speech: Samples) -> None:
        stream = heard(self.begin(engine), np.tile(speech, 5))
        assert stream.heard == 5 * len(speech)
        assert len(stream._samples) < SAMPLE_RATE

    def test_streams_at_once_do_not_disturb_each_other(self, engine: LiveTranscriber, speech: Samples) -> None:
        def listen(samples: Samples) -> Any:
            return list(engine.listen(ListenRequest(), blocks(samples), Steps()))[-1]

        turns = [speech, speech[SAMPLE_RATE:], speech[: 2 * SAMPLE_RATE]]
        alone = [listen(turn) for turn in turns]
        with ThreadPoolExecutor(len(turns)) as threads:
            assert list(threads.map(listen, turns)) == alone


def heard(stream: Stream, samples: Samples) -> Stream:
    """A stream that has heard all of this, at once."""
    stream.append(samples)
    while not stream.over:
        stream.hear()
    return stream
