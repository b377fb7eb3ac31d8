"""Decoding: every container made by libav here, damage of every kind, and the real recordings."""

from __future__ import annotations

import io
import struct
import tracemalloc
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
from hypothesis import given, settings, strategies as st

from streaming.audio import AudioChunk, PcmEncoding, Samples, encode_pcm
from streaming.decode import MOST_SPLIT_CHANNELS, UndecodableAudio, decode, decode_channels, probe
from streaming.wav import wav_header

RECORDINGS = Path(__file__).parents[3] / "shared" / "audio"


def tone(rate: int, seconds: float) -> Samples:
    return (0.4 * np.sin(2 * np.pi * 440 * np.arange(round(rate * seconds)) / rate)).astype(np.float32)


def made_by_libav(codec: str, container_format: str, channels: list[Samples], rate: int, layout: str) -> bytes:
    target = io.BytesIO()
    with av.open(target, "w", format=container_format) as container:
        stream = container.add_stream(codec, rate=rate, layout=layout)
        assert isinstance(stream, av.AudioStream)
        frame = av.AudioFrame.from_ndarray(np.stack(channels, axis=1).reshape(1, -1), format="flt", layout=layout)
        frame.sample_rate = rate
        frame.pts = 0
        frame.time_base = Fraction(1, rate)
        container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return target.getvalue()


def made_by_hand(samples: Samples, rate: int, channels: int = 1) -> bytes:
    """A 16-bit WAV of any number of channels, all alike, which says nothing of which speaker each is for."""
    body = np.repeat((samples * 32_767).astype("<i2"), channels).tobytes()
    layout = struct.pack("<HHIIHH", 1, channels, rate, rate * 2 * channels, 2 * channels, 16)
    head = b"RIFF" + struct.pack("<I", 36 + len(body)) + b"WAVEfmt " + struct.pack("<I", 16) + layout
    return head + b"data" + struct.pack("<I", len(body)) + body


def video(*, with_audio: bool) -> bytes:
    target = io.BytesIO()
    with av.open(target, "w", format="mp4") as container:
        pictures = container.add_stream("mpeg4", rate=10)
        assert isinstance(pictures, av.VideoStream)
        pictures.width = pictures.height = 32
        pictures.pix_fmt = "yuv420p"
        sound = container.add_stream("aac", rate=48_000, layout="mono") if with_audio else None
        for _ in range(10):
            picture = av.VideoFrame.from_ndarray(np.zeros((32, 32, 3), np.uint8), format="rgb24")
            container.mux(pictures.encode(picture))
        container.mux(pictures.encode(None))
        if sound is not None:
            assert isinstance(sound, av.AudioStream)
            frame = av.AudioFrame.from_ndarray(tone(48_000, 1.0)[np.newaxis], format="flt", layout="mono")
            frame.sample_rate = 48_000
            container.mux(sound.encode(frame))
            container.mux(sound.encode(None))
    return target.getvalue()


def heard(data: bytes, sample_rate: int = 16_000) -> Samples:
    return np.concatenate([block.samples for block in decode(io.BytesIO(data), sample_rate=sample_rate)])


def assert_is_tone(samples: Samples, seconds: float, within: float = 0.1, rate: int = 16_000) -> None:
    assert abs(len(samples) / rate - seconds) < within
    middle = samples[len(samples) // 4 : -len(samples) // 4]
    spectrum = np.abs(np.fft.rfft(middle * np.hanning(len(middle))))
    assert int(np.argmax(spectrum)) * rate / len(middle) == pytest.approx(440, abs=3)
    assert np.std(middle) == pytest.approx(0.4 / np.sqrt(2), rel=0.1)


@pytest.mark.parametrize(
    ("codec", "container_format", "rate"),
    [
        ("pcm_s16le", "wav", 44_100),
        ("pcm_s24le", "wav", 48_000),
        ("pcm_f32le", "wav", 22_050),
        ("pcm_mulaw", "wav", 8_000),
        ("libmp3lame", "mp3", 44_100),
        ("flac", "flac", 44_100),
        ("libopus", "ogg", 48_000),
        ("aac", "ipod", 44_100),
        ("alac", "ipod", 44_100),
        ("aac", "adts", 24_000),
        ("aac", "mp4", 48_000),
        ("libopus", "webm", 48_000),
        ("aac", "matroska", 16_000),
        ("pcm_s16be", "aiff", 44_100),
        ("mp2", "mpegts", 48_000),
    ],
)
@pytest.mark.parametrize("layout", ["mono", "stereo"])
def test_common_containers_and_codecs(codec: str, container_format: str, rate: int, layout: str) -> None:
    channels = [tone(rate, 1.5)] * (2 if layout == "stereo" else 1)
    data = made_by_libav(codec, container_format, channels, rate, layout)
    assert_is_tone(heard(data), 1.5)
    facts = probe(io.BytesIO(data))
    assert (facts.sample_rate, facts.channels) == (rate, len(channels))
    assert facts.duration == pytest.approx(1.5, abs=0.1)


def test_probe_names_codec_and_container() -> None:
    facts = probe(io.BytesIO(made_by_libav("libmp3lame", "mp3", [tone(24_000, 0.5)], 24_000, "mono")))
    assert (facts.codec, facts.container) == ("mp3", "mp3")


def test_video_gives_its_sound() -> None:
    assert_is_tone(heard(video(with_audio=True)), 1.0)


@pytest.mark.parametrize("layout", ["5.1", "7.1"])
@pytest.mark.parametrize("codec", ["flac", "aac"])
def test_surround_is_mixed_without_clipping(codec: str, layout: str) -> None:
    channels = [tone(48_000, 1.0)] * (6 if layout == "5.1" else 8)
    container = "flac" if codec == "flac" else "mp4"
    mixed = heard(made_by_libav(codec, container, channels, 48_000, layout))
    assert_is_tone(mixed, 1.0)


@pytest.mark.parametrize("channels", [1, 2, 3, 5, 8, 9, 12, 24, 64])
def test_many_channels_at_192_khz(channels: int) -> None:
    assert_is_tone(heard(made_by_hand(tone(192_000, 0.5), 192_000, channels)), 0.5, within=0.001)


def test_absurd_headers_are_refused_before_they_cost_anything() -> None:
    for data in (made_by_hand(tone(8_000, 1.0), 1), made_by_hand(tone(8_000, 1.0), 8_000, channels=190)):
        with pytest.raises(UndecodableAudio, match="cannot decode") as refused:
            heard(data)
        assert refused.value.code == "unsupported_format"


@pytest.mark.parametrize("sample_rate", [8_000, 16_000, 24_000, 48_000])
def test_blocks_tile_the_clock(sample_rate: int) -> None:
    data = made_by_hand(tone(22_050, 2.35), 22_050)
    blocks = list(decode(io.BytesIO(data), sample_rate=sample_rate, block_seconds=0.5))
    assert [block.start for block in blocks] == [0, *(block.end for block in blocks[:-1])]
    assert {len(block.samples) for block in blocks[:-1]} == {sample_rate // 2}
    assert abs(blocks[-1].end / sample_rate - 2.35) < 0.001
    assert {block.sample_rate for block in blocks} == {sample_rate}


def test_block_size_does_not_change_the_audio() -> None:
    data = made_by_libav("libmp3lame", "mp3", [tone(44_100, 1.0)], 44_100, "mono")
    small = np.concatenate([block.samples for block in decode(io.BytesIO(data), block_seconds=0.01)])
    assert np.array_equal(small, heard(data))


def test_a_wav_that_does_not_know_its_length() -> None:
    samples = tone(24_000, 1.0)
    data = wav_header(24_000, PcmEncoding.S16LE) + encode_pcm(samples, PcmEncoding.S16LE)
    assert_is_tone(heard(data), 1.0)


def test_streams_joined_end_to_end_may_change_their_rate() -> None:
    chained = b"".join(made_by_libav("aac", "adts", [tone(rate, 1.0)], rate, "mono") for rate in (16_000, 48_000))
    assert_is_tone(heard(chained), 2.0, within=0.2)  # each stream brings its own priming


def test_files_are_opened_by_path_whatever_their_name(tmp_path: Path) -> None:
    path = tmp_path / "http:%0a#?.bin"
    path.write_bytes(made_by_hand(tone(16_000, 0.5), 16_000))
    assert_is_tone(np.concatenate([block.samples for block in decode(path)]), 0.5)
    assert probe(str(path)).duration == pytest.approx(0.5)


def test_a_missing_file_is_not_called_bad_audio(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        next(decode(tmp_path / "nothing.wav"))


def code_of(data: bytes) -> str:
    with pytest.raises(UndecodableAudio) as refused:
        heard(data)
    assert refused.value.message == str(refused.value)
    return refused.value.code


def test_an_empty_file() -> None:
    assert code_of(b"") == "empty_file"


def test_a_container_that_holds_no_samples() -> None:
    assert code_of(made_by_hand(tone(16_000, 0), 16_000)) == "empty_file"


@pytest.mark.parametrize("name", ["notes.mp3", "notes.wav", "notes.txt"])
def test_text_under_another_name(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    path.write_bytes(b"The quick brown fox jumps over the lazy dog.\n" * 200)
    with pytest.raises(UndecodableAudio) as refused:
        next(decode(path))
    assert refused.value.code == "unsupported_format"


def test_formats_that_name_other_files_are_not_followed(tmp_path: Path) -> None:
    secret = tmp_path / "secret.wav"
    secret.write_bytes(made_by_hand(tone(16_000, 0.5), 16_000))
    for name, text in {
        "list.txt": "ffconcat version 1.0\nfile 'secret.wav'\n",
        "list.m3u8": "#EXTM3U\n#EXT-X-TARGETDURATION:1\n#EXTINF:1,\nsecret.wav\n#EXT-X-ENDLIST\n",
        "session.sdp": "v=0\no=- 0 0 IN IP4 127.0.0.1\ns=x\nc=IN IP4 127.0.0.1\nt=0 0\nm=audio 9 RTP/AVP 0\n",
    }.items():
        (tmp_path / name).write_text(text)
        with pytest.raises(UndecodableAudio) as refused:
            next(decode(tmp_path / name))
        assert refused.value.code == "unsupported_format"


def test_video_without_sound() -> None:
    assert code_of(video(with_audio=False)) == "no_audio_stream"


def test_a_file_cut_off_in_its_header() -> None:
    whole = made_by_libav("aac", "mp4", [tone(48_000, 2.0)], 48_000, "mono")
    assert code_of(whole[: len(whole) // 2]) == "corrupt_audio"  # its index is at the end
    assert code_of(made_by_hand(tone(16_000, 1.0), 16_000)[:20]) == "corrupt_audio"


@pytest.mark.parametrize(
    ("codec", "container_format"), [("pcm_s16le", "wav"), ("flac", "flac"), ("libmp3lame", "mp3"), ("libopus", "ogg")]
)
def test_a_file_cut_off_later_gives_what_is_there(codec: str, container_format: str) -> None:
    whole = made_by_libav(codec, container_format, [tone(48_000, 4.0)], 48_000, "mono")
    assert_is_tone(heard(whole[: len(whole) // 2]), 2.0, within=0.5)


def test_tags_in_another_encoding_do_no_harm() -> None:
    title = b"\x03Caf\xe9 M\xfcller"
    frame = b"TIT2" + struct.pack(">I", len(title)) + b"\x00\x00" + title
    tag = b"ID3\x03\x00\x00" + struct.pack(">I", len(frame)) + frame
    assert_is_tone(heard(tag + made_by_libav("libmp3lame", "mp3", [tone(24_000, 1.0)], 24_000, "mono")), 1.0)


WHOLE_FILES = [
    made_by_libav(codec, container, [tone(24_000, 0.3)], 24_000, "mono")
    for codec, container in (("pcm_s16le", "wav"), ("libmp3lame", "mp3"), ("libopus", "ogg"), ("aac", "mp4"))
]


@settings(max_examples=60, deadline=None)
@given(
    whole=st.sampled_from(WHOLE_FILES),
    damage=st.lists(st.tuples(st.integers(0, 600), st.integers(0, 255)), max_size=20),
    length=st.integers(1, 20_000),
)
def test_no_damage_raises_anything_else(whole: bytes, damage: list[tuple[int, int]], length: int) -> None:
    data = bytearray(whole)
    for position, value in damage:
        data[position % len(data)] = value
    try:
        samples = heard(bytes(data[:length]))
    except UndecodableAudio:
        return
    assert np.isfinite(samples).all()


def test_closing_early_leaves_the_callers_file_open() -> None:
    source = io.BytesIO(made_by_hand(tone(16_000, 2.0), 16_000))
    blocks = decode(source, block_seconds=0.1)
    first = next(blocks)
    assert isinstance(first, AudioChunk)
    blocks.close()  # type: ignore[attr-defined]
    assert not source.closed


def peak_while_decoding(path: Path) -> int:
    tracemalloc.start()
    try:
        seconds = sum(block.duration for block in decode(path, block_seconds=2.0))
        assert seconds > 10
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


def test_memory_does_not_grow_with_the_recording(tmp_path: Path) -> None:
    peaks = []
    for minutes in (1, 8):
        path = tmp_path / f"{minutes}.wav"
        body = np.zeros(8_000 * 60 * minutes, np.uint8).tobytes()
        path.write_bytes(wav_header(8_000, PcmEncoding.MULAW, len(body)) + body)
        peaks.append(peak_while_decoding(path))
    assert peaks[1] < 1.2 * peaks[0] + 100_000
    assert peaks[1] < 4_000_000


@pytest.mark.skipif(not RECORDINGS.is_dir(), reason="the recordings are not on this machine")
@pytest.mark.parametrize(
    ("name", "seconds"),
    [
        ("jfk.flac", 11.0),
        ("librivox-0870.wav", 7.1),
        ("librivox-0930.wav", 3.3),
        ("go-forward.wav", 2.8),
        ("two-speakers.wav", 30.0),
    ],
)
def test_real_recordings(name: str, seconds: float) -> None:
    blocks = list(decode(RECORDINGS / name))
    assert blocks[-1].end / 16_000 == pytest.approx(seconds, abs=0.1)
    assert probe(RECORDINGS / name).duration == pytest.approx(seconds, abs=0.1)
    level = np.sqrt(np.mean(np.concatenate([block.samples for block in blocks]) ** 2))
    assert 0.005 < level < 0.5


# ---------------------------------------------------------------------- channel by channel


def test_every_channel_by_itself_on_one_clock() -> None:
    rate = 44_100
    left, right = tone(rate, 2.5), np.zeros(round(2.5 * rate), np.float32)
    blocks = list(
        decode_channels(io.BytesIO(made_by_libav("flac", "flac", [left, right], rate, "stereo")), block_seconds=1)
    )
    assert [[chunk.start for chunk in block] for block in blocks] == [[0, 0], [16_000, 16_000], [32_000, 32_000]]
    heard_left, heard_right = (np.concatenate([block[index].samples for block in blocks]) for index in (0, 1))
    assert len(heard_left) == len(heard_right) == 40_000
    assert_is_tone(heard_left, 2.5)
    assert np.abs(heard_right).max() < 1e-4


def test_one_channel_split_is_what_decoding_gives() -> None:
    data = made_by_hand(tone(8_000, 1.2), 8_000)
    (block,) = decode_channels(io.BytesIO(data))
    assert np.array_equal(block[0].samples, heard(data))


def test_more_channels_than_can_be_told_apart_are_refused() -> None:
    data = made_by_hand(tone(8_000, 0.2), 8_000, MOST_SPLIT_CHANNELS)
    assert len(next(decode_channels(io.BytesIO(data)))) == MOST_SPLIT_CHANNELS
    with pytest.raises(UndecodableAudio, match=f"at most {MOST_SPLIT_CHANNELS}") as refusal:
        list(decode_channels(io.BytesIO(made_by_hand(tone(8_000, 0.2), 8_000, MOST_SPLIT_CHANNELS + 1))))
    assert refusal.value.code == "unsupported_format"


def test_a_channel_that_is_gone_is_silent_from_there() -> None:
    """ADTS says in every frame how many channels there are: first two, then one."""
    sound = tone(48_000, 1.0)
    first = made_by_libav("aac", "adts", [sound, sound], 48_000, "stereo")
    second = made_by_libav("aac", "adts", [sound], 48_000, "mono")
    blocks = list(decode_channels(io.BytesIO(first + second)))
    assert {len(block) for block in blocks} == {2}
    left, right = (np.concatenate([block[index].samples for block in blocks]) for index in (0, 1))
    assert len(left) == len(right) > 1.5 * 16_000
    assert np.std(left[-8_000:-1_000]) > 0.1
    assert np.std(right[2_000:8_000]) > 0.1
    assert np.abs(right[-8_000:]).max() < 1e-3
