"""One item on its way out: one stream and one clock, whatever it is made of."""

from __future__ import annotations

import io
import itertools

import numpy as np
import pytest

from media.dialects.speech_options import BIT_RATES, SAMPLE_RATES
from streaming.audio import PcmEncoding
from streaming.decode import decode
from streaming.encode import AudioFormat
from streaming.speech_output import Delta, OutputFormat, SpeechOutput, TimedWord


def tone(seconds: float, rate: int) -> np.ndarray:
    return np.sin(2 * np.pi * 220 * np.arange(round(seconds * rate)) / rate).astype(np.float32) * 0.5


def joined(deltas: list[Delta]) -> bytes:
    return b"".join(delta.audio for delta in deltas)


def written(output: SpeechOutput, samples: np.ndarray, rate: int) -> bytes:
    return joined(output.write(samples, rate))


def finished(output: SpeechOutput) -> bytes:
    return joined(output.finish())


@pytest.mark.parametrize("format", AudioFormat)
def test_every_choice_a_client_may_make_gives_audio(format: AudioFormat) -> None:
    for rate, bit_rate in itertools.product(SAMPLE_RATES, (None, *BIT_RATES)):
        for encoding in PcmEncoding:
            output = SpeechOutput(OutputFormat(format, encoding, rate, bit_rate))
            assert written(output, tone(0.1, 22_050), 22_050) + finished(output)
            if format not in (AudioFormat.PCM, AudioFormat.WAV):
                break


def test_pieces_of_different_rates_keep_their_length_and_pitch() -> None:
    output = SpeechOutput(OutputFormat(AudioFormat.PCM, PcmEncoding.F32LE, 24_000))
    data = b""
    for rate in (22_050, 24_000, 16_000):
        output.begin_piece()
        data += written(output, tone(1.0, rate), rate)
    data += finished(output)
    samples = np.frombuffer(data, "<f4")
    assert output.seconds == pytest.approx(3.0)
    assert len(samples) == pytest.approx(3 * 24_000, abs=3)
    for second in range(3):
        inner = samples[second * 24_000 + 4000 : second * 24_000 + 20_000]
        peak = np.argmax(np.abs(np.fft.rfft(inner))) * 24_000 / len(inner)
        assert peak == pytest.approx(220, abs=3)


def test_word_times_count_from_the_beginning_of_the_item() -> None:
    output = SpeechOutput(OutputFormat())
    output.begin_piece()
    written(output, tone(0.5, 16_000), 16_000)
    output.end_piece()
    output.begin_piece()
    written(output, tone(0.5, 16_000), 16_000)
    words = output.words([TimedWord("go", 0.0, 0.2), TimedWord("now", 0.25, 0.4)])
    assert [(word.text, word.start, word.end) for word in words] == [("go", 0.5, 0.7), ("now", 0.75, 0.9)]


def test_words_of_a_piece_wait_for_its_sound() -> None:
    output = SpeechOutput(OutputFormat())
    output.begin_piece()
    written(output, np.zeros(4800, np.float32), 16_000)
    assert output.words([TimedWord("go", 0.1, 0.4)]) == ()
    written(output, tone(0.5, 16_000), 16_000)
    (word,) = output.words([])
    assert (word.start, word.end) == pytest.approx((0.0, 0.16), abs=0.001), "0.24 s of silence were cut away"


def test_the_words_of_a_silent_piece_are_told_at_its_end() -> None:
    output = SpeechOutput(OutputFormat())
    output.begin_piece()
    written(output, tone(0.5, 16_000), 16_000)
    output.end_piece()
    output.begin_piece()
    written(output, np.zeros(1600, np.float32), 16_000)
    assert output.words([TimedWord("...", 0.0, 0.1)]) == ()
    (word,) = output.end_piece()
    assert 0.5 <= word.start <= word.end <= 0.51


def test_a_file_format_decodes_to_what_was_spoken() -> None:
    output = SpeechOutput(OutputFormat(AudioFormat.OPUS, sample_rate=24_000))
    data = b"".join(written(output, tone(0.25, 22_050), 22_050) for _ in range(4)) + finished(output)
    decoded = np.concatenate([chunk.samples for chunk in decode(io.BytesIO(data), sample_rate=24_000)])
    assert len(decoded) / 24_000 == pytest.approx(1.0, abs=0.05)


def test_a_known_length_is_in_the_header_of_a_wav() -> None:
    output = SpeechOutput(OutputFormat(AudioFormat.WAV, sample_rate=16_000), total_seconds=0.5)
    data = written(output, tone(0.5, 16_000), 16_000) + finished(output)
    assert int.from_bytes(data[40:44], "little") == 16_000
    assert int.from_bytes(data[4:8], "little") == len(data) - 8


def test_nothing_spoken_is_nothing_sent_and_closing_is_harmless() -> None:
    output = SpeechOutput(OutputFormat(AudioFormat.MP3))
    assert finished(output) == b""
    output.close()
    written(output, tone(0.1, 24_000), 24_000)
    output.close()
    output.close()
    assert finished(output) == b""
