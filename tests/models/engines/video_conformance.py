"""What every video engine must do, whatever it shows. Used as the suites of `conformance` are."""

from __future__ import annotations

import io
import threading
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image

from models.catalog import Card
from models.errors import Cancelled, InvalidInput
from models.interfaces import ImagePreview, OnStep
from models.video_interfaces import FrameImage, VideoFrames, VideoGenerator, VideoRequest
from models.video_rules import nearest_frames
from tests.models.engines.conformance import Steps

Clip = npt.NDArray[np.int16]


def request_of(**fields: Any) -> VideoRequest:
    usual: dict[str, Any] = {"prompt": "a red cube on a table", "seed": 7, "previews": False}
    return VideoRequest(**usual | fields)


def pieces(engine: VideoGenerator, on_step: OnStep | None = None, **fields: Any) -> list[VideoFrames]:
    """The frames of a request, as they came."""
    results = engine.generate(request_of(**fields), on_step or Steps())
    return [result for result in results if isinstance(result, VideoFrames)]


def shoot(engine: VideoGenerator, on_step: OnStep | None = None, **fields: Any) -> Clip:
    """The clip of a request: (frames, height, width, 3)."""
    return np.concatenate([piece.pixels for piece in pieces(engine, on_step, **fields)]).astype(np.int16)


def difference(one: Clip, other: Clip) -> int:
    """The largest of any colour of any pixel of any frame."""
    return int(np.abs(one - other).max())


class VideoConformance:
    """Give it fixtures `engine` and `card`, for a model that needs no picture."""

    @pytest.mark.parametrize("more", [0, 1])
    def test_every_frame_comes_and_every_step_is_told(self, engine: VideoGenerator, card: Card, more: int) -> None:
        frames = card.default_frames + more * card.frame_multiple
        steps = Steps()
        found = pieces(engine, steps, steps=3, frames=frames)
        width, height = card.default_size
        assert sum(len(piece.pixels) for piece in found) == frames
        for piece in found:
            assert piece.pixels.dtype == np.uint8
            assert piece.pixels.shape[1:] == (height, width, 3)
            assert piece.speed == "exact"
        assert np.concatenate([piece.pixels for piece in found]).std() > 1
        steps.assert_monotonic()
        assert {total for _, total in steps.calls} == {3 + frames}
        assert {done for done, _ in steps.calls} >= set(range(1, 3 + frames + 1))

    def test_a_seed_is_a_clip(self, engine: VideoGenerator) -> None:
        first, other, again = shoot(engine), shoot(engine, seed=8), shoot(engine)
        assert first.tobytes() == again.tobytes()
        assert difference(first, other) > 20

    def test_a_seed_that_nobody_chose_is_another_each_time(self, engine: VideoGenerator) -> None:
        assert difference(shoot(engine, seed=None), shoot(engine, seed=None)) > 20

    def test_the_prompt_matters(self, engine: VideoGenerator) -> None:
        assert difference(shoot(engine, guidance=5.0), shoot(engine, prompt="green", guidance=5.0)) > 0

    def test_another_size_is_made(self, engine: VideoGenerator, card: Card) -> None:
        width, height = card.default_size
        assert shoot(engine, width=2 * width, height=height).shape[1:] == (height, 2 * width, 3)

    @pytest.mark.parametrize("cancel_at", [1, 3])
    def test_cancelled_from_on_step_stops_at_that_step(self, engine: VideoGenerator, cancel_at: int) -> None:
        expected = shoot(engine)
        steps = Steps(cancel_at)
        with pytest.raises(Cancelled):
            shoot(engine, steps)
        assert len(steps.calls) == cancel_at
        assert shoot(engine).tobytes() == expected.tobytes()

    def test_cancelled_among_the_frames_no_more_of_them_are_decoded(self, engine: VideoGenerator, card: Card) -> None:
        told: list[float] = []
        asked = card.default_steps + 2

        def cancel(done: float, total: float | None) -> None:
            told.append(done)
            if done >= asked:
                raise Cancelled("stop")

        with pytest.raises(Cancelled):
            shoot(engine, cancel)
        assert told[-1] == asked

    def test_previews_come_before_the_frames(self, engine: VideoGenerator, card: Card) -> None:
        preview, *rest = engine.generate(request_of(previews=True), Steps())
        assert isinstance(preview, ImagePreview)
        assert preview.index == 0
        assert 0 < preview.step < preview.total == card.default_steps
        with Image.open(io.BytesIO(preview.data)) as image:
            assert image.format == "JPEG"
            assert image.size == (preview.width, preview.height) == card.default_size
            assert np.asarray(image).std() > 1
        assert isinstance(rest[-1], VideoFrames)

    def test_without_previews_there_are_none_and_the_frames_are_the_same(self, engine: VideoGenerator) -> None:
        plain = list(engine.generate(request_of(), Steps()))
        assert all(isinstance(result, VideoFrames) for result in plain)
        assert shoot(engine).tobytes() == shoot(engine, previews=True).tobytes()

    def test_closing_stops_the_work(self, engine: VideoGenerator) -> None:
        steps = Steps()
        results = engine.generate(request_of(steps=20, previews=True), steps)
        assert isinstance(next(results), ImagePreview)
        results.close()  # type: ignore[attr-defined]  # engines are generators
        known = len(steps.calls)
        assert known < 20
        shoot(engine)
        assert len(steps.calls) == known

    def test_requests_wait_for_each_other_and_may_be_cancelled_while_they_do(self, engine: VideoGenerator) -> None:
        expected = shoot(engine)
        at_work, go_on = threading.Event(), threading.Event()

        def hold(done: float, total: float | None) -> None:
            at_work.set()
            assert go_on.wait(20)

        made: list[Clip] = []
        other = threading.Thread(target=lambda: made.append(shoot(engine, hold)))
        other.start()
        try:
            assert at_work.wait(20)
            waiting = Steps(cancel_at=2)
            with pytest.raises(Cancelled):
                shoot(engine, waiting)
            assert {done for done, _ in waiting.calls} == {0}
        finally:
            go_on.set()
            other.join()
        assert made[0].tobytes() == expected.tobytes()

    @pytest.mark.parametrize(
        ("fields", "field"),
        [({"width": 63}, "width"), ({"steps": 1000}, "steps"), ({"fps": 100}, "fps"), ({"guidance": -1.0}, "guidance")],
    )
    def test_what_the_card_does_not_allow_is_refused(
        self, engine: VideoGenerator, fields: dict[str, Any], field: str
    ) -> None:
        with pytest.raises(InvalidInput) as refusal:
            shoot(engine, **fields)
        assert refusal.value.field == field

    def test_a_number_of_frames_that_the_model_does_not_make_is_refused(
        self, engine: VideoGenerator, card: Card
    ) -> None:
        wanted = card.default_frames + 1
        if card.frame_multiple == 1:  # it makes any number
            assert nearest_frames(wanted, card) == wanted
            return
        assert nearest_frames(wanted, card) != wanted
        with pytest.raises(InvalidInput) as refusal:
            shoot(engine, frames=wanted)
        assert refusal.value.field == "frames"

    @pytest.mark.parametrize("content", [b"", b"no image", b"\x89PNG\r\n\x1a\n" + bytes(64)])
    def test_what_is_no_image_is_refused(self, engine: VideoGenerator, tmp_path: Path, content: bytes) -> None:
        path = tmp_path / "upload"
        path.write_bytes(content)
        with pytest.raises(InvalidInput) as refusal:
            shoot(engine, frame_images=(FrameImage(str(path)),))
        assert refusal.value.field == "frame_images"

    def test_nothing_is_printed(self, engine: VideoGenerator, capfd: pytest.CaptureFixture[str]) -> None:
        shoot(engine, previews=True)
        assert capfd.readouterr() == ("", "")
