"""Which kinds of jobs there are, and what does them."""

from __future__ import annotations

from collections.abc import Mapping

from media.jobs.desk import Handler
from media.jobs.images import make_images
from media.jobs.recordings import transcribe_recording
from media.jobs.speech import speak_text
from media.jobs.videos import make_video

HANDLERS: Mapping[str, Handler] = {
    "image": make_images,
    "video": make_video,
    "transcription": transcribe_recording,
    "speech": speak_text,
}
