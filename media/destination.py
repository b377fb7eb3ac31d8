"""Where a command's result goes: a file that is there whole or not at all, or standard output."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, BinaryIO

from streaming.audio import PcmEncoding
from streaming.encode import AudioFormat
from streaming.wav import wav_header

ENDINGS = {f".{format.value}": format for format in AudioFormat} | {
    ".wave": AudioFormat.WAV,
    ".ogg": AudioFormat.OPUS,
    ".oga": AudioFormat.OPUS,
    ".raw": AudioFormat.PCM,
    ".ulaw": AudioFormat.MULAW,
}
"""What a file's name says about the audio in it."""


@contextmanager
def destination(path: Path | None) -> Iterator[BinaryIO]:
    """A file open for writing; None is standard output.

    What was at `path` before stays there unless the scope ends well. Raises: OSError.
    """
    if path is None:
        yield sys.stdout.buffer
        sys.stdout.buffer.flush()
    elif path.exists() and not path.is_file():  # a device or a named pipe: nothing there could be replaced
        with path.open("wb") as file:
            yield file
    else:
        target = path.resolve()  # a link stays a link
        part = target.with_name(f".{target.name}.{os.getpid()}.part")
        try:
            with part.open("xb") as file:
                yield file
            part.replace(target)
        finally:
            part.unlink(missing_ok=True)


def complete_wav(file: IO[bytes], sample_rate: int, encoding: PcmEncoding = PcmEncoding.S16LE) -> None:
    """Put true sizes into the header of a finished WAV file, which were not known when it was written.

    A file that cannot be rewound keeps its streaming header. Raises: OSError.
    """
    if not file.seekable():
        return
    header = len(wav_header(sample_rate, encoding))
    samples = (file.tell() - header) // encoding.bytes_per_sample
    if samples > 0:
        file.seek(0)
        file.write(wav_header(sample_rate, encoding, samples))
        file.seek(0, os.SEEK_END)
