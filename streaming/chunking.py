"""Which piece of the text that waits is spoken next, given how many characters may be in it."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable

from streaming.boundaries import next_cut
from streaming.text import TextPiece, moved_cut

SHORT = 16
"""Characters below which a piece is not chosen by its length, but as the first piece of an answer is."""


def take_piece(
    waiting: deque[TextPiece],
    *,
    fitting: int,
    most: int,
    alone: bool,
    safe: Callable[[str, int], int] | None = None,
) -> TextPiece:
    """Take the next piece off a queue that has one.

    `fitting` characters can be made in time, `most` may be made at once. Pieces of one paragraph that fit together are
    taken together, unless it has to be spoken `alone`; of one that does not fit a part is taken, up to a mark or a
    word, as long as the parts after it. `safe` moves a cut out of what is read as one.
    """
    piece = waiting.popleft()
    limit = min(fitting, most)
    if (length := len(piece.text.lstrip())) > limit:
        cut = _cut(piece.text, length, limit, most)
        if safe is not None and cut < len(piece.text):
            cut = moved_cut(piece.text, cut, safe) or cut
        if cut < len(piece.text):
            waiting.appendleft(TextPiece(piece.text[cut:], piece.start + cut, piece.end))
        return TextPiece(piece.text[:cut], piece.start, piece.start + cut)
    while waiting and not alone and _goes_on(piece, waiting[0]) and waiting[0].end - piece.start <= limit:
        following = waiting.popleft()
        piece = TextPiece(piece.text + following.text, piece.start, following.end)
    return piece


def _cut(text: str, length: int, limit: int, most: int) -> int:
    if limit < SHORT:
        cut = next_cut(text, 0, len(text), max_length=max(most, 1), first=True, final=True)
    else:
        # A last part of one word would sound odd.
        share = math.ceil(length / math.ceil(length / limit)) + SHORT
        cut = next_cut(text, 0, len(text), max_length=min(limit, share), final=True)
    return len(text) if cut is None else cut


def _goes_on(piece: TextPiece, following: TextPiece) -> bool:
    blanks = following.text[: len(following.text) - len(following.text.lstrip())]
    return piece.end == following.start and "\n" not in blanks
