"""The bench's arithmetic and its reports, with fixed numbers; nothing here measures time."""

from __future__ import annotations

import base64
import io

import msgspec
import pytest
from rich.console import Console
from starlette.types import Message, Receive, Scope, Send
from websockets.frames import Frame, Opcode
from websockets.protocol import Protocol, Side

from tests.bench.__main__ import MEASUREMENTS
from tests.bench.machine import this_machine
from tests.bench.probe import PATH, Probe, Readings
from tests.bench.raw_socket import append_event, text_frame
from tests.bench.recording import SAMPLE_RATE, noise
from tests.bench.report import Figure, Report, Target, render
from tests.bench.summary import paired_ratio, summarize


def shown(figure: Figure) -> str:
    console = Console(width=200, file=io.StringIO(), no_color=True)
    console.print(render(figure))
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


def test_a_summary_holds_order_statistics() -> None:
    summary = summarize([float(value) for value in range(101)][::-1])
    assert (summary.n, summary.min, summary.median, summary.p95, summary.p99, summary.max) == (101, 0, 50, 95, 99, 100)


def test_nothing_cannot_be_summarized() -> None:
    with pytest.raises(ValueError, match="nothing"):
        summarize([])


def test_a_constant_ratio_has_no_spread() -> None:
    ratio = paired_ratio([2.0, 4.0, 60.0], [1.0, 2.0, 30.0])
    assert (ratio.median, ratio.low, ratio.high, ratio.pairs) == (2.0, 2.0, 2.0, 3)


def test_a_ratio_pairs_readings_of_the_same_moment() -> None:
    """Both sides five times slower half of the time: unpaired that would be a spread of 25."""
    reference = [1.0, 5.0] * 10
    ratio = paired_ratio([1.5 * value for value in reference], reference)
    assert ratio.low == ratio.high == 1.5


def test_the_interval_encloses_the_median_and_is_repeatable() -> None:
    ours = [1.0 + 0.1 * (number % 7) for number in range(40)]
    ratio = paired_ratio(ours, [1.0] * 40)
    assert ratio == paired_ratio(ours, [1.0] * 40)
    assert 1.0 <= ratio.low < ratio.median < ratio.high <= 1.6


def test_the_interval_narrows_with_more_pairs() -> None:
    readings = [1.0, 1.2, 1.4, 1.6, 1.8]
    few, many = paired_ratio(readings, [1.0] * 5), paired_ratio(readings * 40, [1.0] * 200)
    assert many.high - many.low < few.high - few.low


@pytest.mark.parametrize(("ours", "reference"), [([1.0], []), ([], []), ([1.0], [0.0])])
def test_a_ratio_needs_pairs_with_a_positive_reference(ours: list[float], reference: list[float]) -> None:
    with pytest.raises(ValueError, match="reading|positive"):
        paired_ratio(ours, reference)


def test_targets_are_about_one_statistic() -> None:
    summary = summarize([1.0] * 99 + [100.0])
    assert Target(1.0).met(summary)
    assert not Target(50.0, "max").met(summary)
    assert Target(1.0, at_least=True).met(summary)
    assert not Target(2.0, at_least=True).met(summary)


def test_the_target_of_a_compared_row_is_about_the_ratio() -> None:
    figure = Figure("f", "F")
    figure.compare("ours", "ms", [110.0, 110.0], "theirs", [100.0, 100.0], Target(1.2))
    assert figure.rows[0].met


def test_a_table_shows_numbers_ratio_and_target() -> None:
    figure = Figure("f", "Some figure", {"runs": 3})
    figure.compare("ours", "ms", [3.0, 3.0, 3.0], "theirs", [1.5, 1.5, 1.5], Target(4.0))
    figure.add("plain", "frames/s", [12_345.6])
    text = shown(figure)
    assert "Some figure" in text
    assert "2 × theirs (2-2)" in text
    assert "median ≤ 4" in text
    assert "12,346" in text
    assert "runs 3" in text
    assert "provisional" not in text


def test_a_busy_machine_makes_numbers_provisional() -> None:
    assert "provisional: others used 1.5 cores" in shown(Figure("f", "F", foreign_load=1.5))


def test_a_row_without_readings_is_a_note() -> None:
    figure = Figure("f", "F")
    figure.add("partials", "ms", [])
    assert figure.rows == []
    assert "partials: no readings" in shown(figure)


def test_json_holds_machine_figures_and_every_number() -> None:
    figure = Figure("f", "F", {"runs": 2})
    figure.compare("ours", "ms", [1.0, 2.0], "theirs", [1.0, 1.0], Target(1.0, "median"))
    report = Report(this_machine(), quick=True, figures=[figure], seconds=1.5)
    data = msgspec.json.decode(report.json())
    assert set(data) == {"machine", "quick", "figures", "seconds"}
    assert data["machine"]["packages"].keys() >= {"starlette", "uvicorn", "numpy"}
    (row,) = data["figures"][0]["rows"]
    assert row["summary"] == {"n": 2, "min": 1.0, "median": 1.5, "p95": 1.95, "p99": 1.99, "max": 2.0}
    assert row["ratio"].keys() == {"median", "low", "high", "pairs"}
    assert row["target"] == {"value": 1.0, "statistic": "median", "at_least": False}
    assert msgspec.json.decode(report.json(), type=Report) == report


def test_every_measurement_has_a_name_that_can_be_asked_for() -> None:
    assert set(MEASUREMENTS) == {
        "diarization",
        "images",
        "filming",
        "ledger",
        "first_audio", "cancellation", "process_line", "loop_lag", "finals", "encoding", "stalled_client", "frames",
        "live_speakers", "end_of_turn", "quiet",
        "speaking", "ingest", "uploads", "whisper", "live_whisper", "live_peers", "live_hours", "long_recordings",
    }  # fmt: skip


@pytest.mark.parametrize("length", [0, 125, 126, 65_535, 65_536])
def test_raw_frames_are_what_a_server_expects_of_a_client(length: int) -> None:
    server = Protocol(Side.SERVER, max_size=None)
    server.receive_data(text_frame(b"a" * length))
    (frame,) = server.events_received()
    assert isinstance(frame, Frame)
    assert frame.opcode is Opcode.TEXT
    assert bytes(frame.data) == b"a" * length


def test_appended_audio_is_base64_in_the_event() -> None:
    event = msgspec.json.decode(append_event(b"\x00\x01"))
    assert event["type"] == "input_audio_buffer.append"
    assert base64.b64decode(event["audio"]) == b"\x00\x01"


def test_a_quiet_room_is_half_silent_and_never_loud() -> None:
    samples = noise(1.0)
    assert len(samples) == SAMPLE_RATE
    assert not samples[: SAMPLE_RATE // 2].any()
    assert 0 < abs(samples[SAMPLE_RATE // 2 :]).max() < 0.05


async def test_the_probe_answers_for_itself_and_passes_everything_else_on() -> None:
    passed: list[str] = []
    sent: list[Message] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        passed.append(scope["path"])

    async def receive() -> Message:
        raise AssertionError("nobody reads the body")

    async def send(message: Message) -> None:
        sent.append(message)

    probe = Probe(app)
    await probe({"type": "http", "path": "/healthz"}, receive, send)
    await probe({"type": "http", "path": PATH}, receive, send)
    assert passed == ["/healthz"]
    readings = msgspec.json.decode(sent[1]["body"], type=Readings)
    assert readings.lags == readings.own == []
    assert readings.cpu_seconds > 0
