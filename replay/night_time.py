"""Which time of the night it was at a moment of ours: the board's clock may run faster than the machine's, or stand.

What arrives is dated by the machine, what is changed and decided by the board. Every event of the board carries both, its
place in the stream and its ``at_ms``: between two events the clock is taken to run evenly.
"""

import math
from bisect import bisect_right

KEPT_EVERY_MS = 250
"""Between two events whose clocks go on as before, none in between is kept: a night has a million."""

EVEN_MS = 5
"""The board's time is in whole milliseconds, and read a moment after the stream's."""

SLOPE_OVER_MS = 2000
"""How long a stretch must be to tell how fast the clock ran before the first event, or after the last."""

SAME_S = 2.0
"""A board's clock that is nearer to ours than this was not moved."""


class NightTime:
    """Times of the night by our clock, and of ours by the night's."""

    def __init__(self) -> None:
        self._ours_ms: list[float] = []
        self._board_ms: list[float] = []

    def note(self, ours_ms: float, board_ms: float) -> None:
        """Note what the board's clock said at a moment of ours [ms since the epoch]; moments may come in any order."""
        ours, board = self._ours_ms, self._board_ms
        if ours and ours_ms < ours[-1]:
            place = bisect_right(ours, ours_ms)
            ours.insert(place, ours_ms)
            board.insert(place, board_ms)
            return
        if len(ours) > 1 and self._goes_on(ours_ms, board_ms):
            ours.pop()
            board.pop()
        ours.append(ours_ms)
        board.append(board_ms)

    def _goes_on(self, ours_ms: float, board_ms: float) -> bool:
        """Whether the newest moment says nothing that its neighbours do not."""
        (a, b), (a_board, b_board) = self._ours_ms[-2:], self._board_ms[-2:]
        if ours_ms - a < KEPT_EVERY_MS:
            return True
        ahead = {round((board - ours) / EVEN_MS) for ours, board in ((a, a_board), (b, b_board), (ours_ms, board_ms))}
        return len(ahead) == 1

    @property
    def is_moved(self) -> bool:
        """Whether the board's clock was ever another than ours."""
        pairs = zip(self._ours_ms, self._board_ms, strict=True)
        return any(abs(board - ours) > SAME_S * 1000 for ours, board in pairs)

    @property
    def begins_s(self) -> float:
        """From when on it is known [s since the epoch]; forever back if nothing was noted."""
        return self._ours_ms[0] / 1000 if self._ours_ms else -math.inf

    def board_s(self, ours_s: float) -> float:
        """Return the board's time at a moment of ours [s since the epoch]; the same if nothing was noted."""
        ours, board = self._ours_ms, self._board_ms
        if not ours:
            return ours_s
        at = ours_s * 1000
        place = bisect_right(ours, at)
        if place == 0:
            return (board[0] - (ours[0] - at) * self._slope(first=True)) / 1000
        if place == len(ours):
            return (board[-1] + (at - ours[-1]) * self._slope(first=False)) / 1000
        before, after = ours[place - 1], ours[place]
        share = (at - before) / (after - before) if after > before else 1.0
        return (board[place - 1] + share * (board[place] - board[place - 1])) / 1000

    def _slope(self, *, first: bool) -> float:
        """Return how fast the clock ran where nothing is known any more: as beside it, at our pace if that is short."""
        ours, board = self._ours_ms, self._board_ms
        places = range(1, len(ours)) if first else range(len(ours) - 2, -1, -1)
        end = 0 if first else -1
        for place in places:
            span_ms = abs(ours[place] - ours[end])
            if span_ms >= SLOPE_OVER_MS:
                return max((board[place] - board[end]) / (ours[place] - ours[end]), 0.0)
        return 1.0
