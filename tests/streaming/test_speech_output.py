"""One item on its way out: one stream and one clock, whatever it is made of."""

from __future__ import annotations

import io
import itertools

import numpy as np
import pytest

from media.dialects.speech import BIT_RATES, SAMPLE_RATES
from models.interfaces import WordTiming
from streaming.audio import PcmEncoding
from streaming.decode import decode
from streaming.encode import AudioFormat
from streaming.speech_output import OutputFormat, SpeechOutput


def tone(seconds: float, rate: int) -> np.ndarray:
    return np.sin(2 * np.pi * 220 * np.arange(round(seconds * rate)) / rate).astype(np.float32) * 0.5


@pytest.mark.parametrize("format", AudioFormat)
def test_every_choice_a_client_may_make_gives_audio(format: AudioFormat) -> None:
    for rate, bit_rate in itertools.product(SAMPLE_RATES, (None, *BIT_RATES)):
        for encoding in PcmEncoding:
            output = SpeechOutput(OutputFormat(format, encoding, rate, bit_rate))
            assert output.write(tone(0.1, 22_050), 22_050) + output.finish()
            if format not in (AudioFormat.PCM, AudioFormat.WAV):
                break


def test_pieces_of_different_rates_keep_their_length_and_pitch() -> None:
    output = SpeechOutput(OutputFormat(AudioFormat.PCM, PcmEncoding.F32LE, 24_000))
    data = b""
    for rate in (22_050, 24_000, 16_000):
        output.begin_piece()
        data += output.write(tone(1.0, rate), rate)
    data += output.finish()
    samples = np.frombuffer(data, "<f4")
    assert output.seconds == pytest.approx(3.0)
    assert len(samples) == pytest.approx(3 * 24_000, abs=3)
    for second in range(3):
        inner = samples[second * 24_000 + 4000 : second * 24_000 + 20_000]
        peak = np.argmax(np.abs(np.fft.rfft(inner))) * 24_000 / len(inner)
        assert peak == pytest.approx(220, abs=3)


def test_word_times_count_from_the_beginning_of_the_item() -> None:
    output = SpeechOutput(OutputFormat())
    spans = (WordTiming(0, 2, 0.0, 0.2), WordTiming(3, 6, 0.25, 0.5))
    output.begin_piece()
    output.write(tone(0.5, 16_000), 16_000)
    output.begin_piece()
    output.write(tone(0.1, 16_000), 16_000)
    words = output.words("go now", spans)
    assert [(word.text, word.start, word.end) for word in words] == [("go", 0.5, 0.7), ("now", 0.75, 1.0)]


def test_a_file_format_decodes_to_what_was_spoken() -> None:
    output = SpeechOutput(OutputFormat(AudioFormat.OPUS, sample_rate=24_000))
    data = b"".join(output.write(tone(0.25, 22_050), 22_050) for _ in range(4)) + output.finish()
    decoded = np.concatenate([chunk.samples for chunk in decode(io.BytesIO(data), sample_rate=24_000)])
    assert len(decoded) / 24_000 == pytest.approx(1.0, abs=0.05)


def test_a_known_length_is_in_the_header_of_a_wav() -> None:
    output = SpeechOutput(OutputFormat(AudioFormat.WAV, sample_rate=16_000), total_seconds=0.5)
    data = output.write(tone(0.5, 16_000), 16_000) + output.finish()
    assert int.from_bytes(data[40:44], "little") == 16_000
    assert int.from_bytes(data[4:8], "little") == len(data) - 8


def test_nothing_spoken_is_nothing_sent_and_closing_is_harmless() -> None:
    output = SpeechOutput(OutputFormat(AudioFormat.MP3))
    assert output.finish() == b""
    output.close()
    output.write(tone(0.1, 24_000), 24_000)
    output.close()
    output.close()
    assert output.finish() == b""
