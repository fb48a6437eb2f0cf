"""Non-linearity: what to subtract from a signal, an Akima spline per amp.

The pixels of a stretch of a row nearly always lie on one or two pieces of the spline; then the pieces are evaluated for
the whole stretch, without looking anything up per pixel. In numpy it is `correct`, compiled `correct_row`.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numba import njit
from numpy.typing import NDArray

from rapid.errors import PayloadError

N_BINS = 1024
"""Bins of the table that tells near which knot a signal lies."""
STRETCH = 128
"""Pixels that are looked at together."""
INFINITE = 0x7F800000
"""Bits of infinity in single precision; those of a NaN without sign are more."""
MAX_PIECES = 4
"""A stretch across more pieces than this (a star's flank) is looked up pixel by pixel."""


@dataclass(frozen=True)
class Linearity:
    """Splines of all amps, as pieces ``c0 + d (c1 + d (c2 + d c3))`` with d the signal above the piece's knot.

    Attributes
    ----------
    knots : ndarray of shape (n_amps, n_pieces), float32
        Where each piece begins, the first at 0; infinite for pieces that an amp does not have. Below 0 nothing is
        subtracted; the last piece is constant.
    pieces : ndarray of shape (n_amps, n_pieces, 4), float32
        c0 to c3.
    nearby : ndarray of shape (n_amps, N_BINS), int32
        A piece that begins before any signal of the bin, at most a few before its own.
    bins_per_unit : ndarray of shape (n_amps,), float32
    """

    knots: NDArray[np.float32]
    pieces: NDArray[np.float32]
    nearby: NDArray[np.int32]
    bins_per_unit: NDArray[np.float32]


def _nodes(table: Mapping[str, Mapping[str, float]], name: str) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return levels above 0, ascending, and values of an amp."""
    try:
        nodes = {float(level): float(value) for level, value in table.get(name, {}).items()}
    except (TypeError, ValueError) as error:
        raise PayloadError(f"linearity of {name}: {error}", amp=name) from error
    levels = np.array(sorted(level for level in nodes if level > 0), dtype=np.float64)
    values = np.array([nodes[level] for level in levels], dtype=np.float64)
    if not (np.isfinite(levels).all() and np.isfinite(values).all()):
        raise PayloadError(f"linearity of {name}: a level or correction is not finite", amp=name)
    return levels, values


def linearity_of(table: Mapping[str, Mapping[str, float]], names: tuple[str, ...]) -> Linearity:
    """Return the splines of a calib's ``{amp: {level [electron]: correction [electron]}}``.

    Akima spline through the nodes, anchored at zero and constant beyond the last one; straight lines with fewer than
    three points. An amp without nodes is left as it is.

    Raises
    ------
    PayloadError
        Raised, naming the amp, for a level or correction that is no finite number.
    """
    from scipy.interpolate import Akima1DInterpolator

    nodes = [_nodes(table, name) for name in names]
    n_pieces = 1 + max((len(levels) for levels, _ in nodes), default=0)
    knots = np.full((len(names), n_pieces), np.inf, dtype=np.float32)
    pieces = np.zeros((len(names), n_pieces, 4), dtype=np.float32)
    nearby = np.zeros((len(names), N_BINS), dtype=np.int32)
    bins_per_unit = np.zeros(len(names), dtype=np.float32)
    knots[:, 0] = 0.0
    for amp, (upper, corrections) in enumerate(nodes):
        n = len(upper)
        if n == 0:
            continue
        levels, values = np.append(0.0, upper), np.append(0.0, corrections)
        knots[amp, : n + 1] = levels
        pieces[amp, n, 0] = values[-1]
        if n > 1:
            pieces[amp, :n] = Akima1DInterpolator(levels, values).c[::-1].T
        else:
            pieces[amp, 0, 1] = values[1] / levels[1]
        step = levels[-1] / N_BINS
        bins_per_unit[amp] = 1.0 / step
        # One bin early, for the rounding of single precision.
        begins = (np.arange(N_BINS) - 1) * step
        nearby[amp] = np.maximum(np.searchsorted(knots[amp, : n + 1], begins, side="right") - 1, 0)
    return Linearity(knots, pieces, nearby, bins_per_unit)


def correct(signal: NDArray[np.float32], linearity: Linearity) -> NDArray[np.float32]:
    """Subtract each amp's spline.

    Parameters
    ----------
    signal : ndarray of shape (n_amps, height, width), float32
    """
    out = np.empty_like(signal)
    for amp, pixels in enumerate(signal):
        clipped = np.where(pixels > 0, pixels, np.float32(0))
        piece = np.searchsorted(linearity.knots[amp], clipped, side="right") - 1
        above = clipped - linearity.knots[amp][piece]
        c = linearity.pieces[amp][piece]
        # Infinity lies on the last piece, where it is multiplied with zeros.
        with np.errstate(invalid="ignore"):
            amount = ((c[..., 3] * above + c[..., 2]) * above + c[..., 1]) * above + c[..., 0]
            out[amp] = pixels - amount
    return out


@njit(nogil=True, cache=True)
def _piece_of(value, knots, nearby, bins_per_unit):  # type: ignore[no-untyped-def] # noqa: ANN001, ANN202
    place = min(value * bins_per_unit, np.float32(N_BINS - 1))
    piece = np.int64(nearby[np.int64(place)])
    while piece + 1 < knots.shape[0] and value >= knots[piece + 1]:
        piece += 1
    return piece


@njit(nogil=True, cache=True)
def _extremes(bits):  # type: ignore[no-untyped-def] # noqa: ANN001, ANN202
    """Return least and greatest of floats given as their bits, negative ones as 0.

    Of numbers that are not negative the bits are in the same order, and their minimum needs no thought of NaN.
    """
    zero = np.int32(0)
    least = np.int32(INFINITE)
    most = zero
    for x in range(bits.shape[0]):
        least = min(least, max(bits[x], zero))
        most = max(most, bits[x])
    return least, most


@njit(nogil=True, cache=True)
def correct_row(signal, knots, pieces, nearby, bins_per_unit, amount):  # type: ignore[no-untyped-def] # noqa: ANN001, ANN201
    """Subtract one amp's spline from a row, in place.

    Parameters
    ----------
    signal : ndarray of shape (n,), float32
    knots, pieces, nearby, bins_per_unit
        Those of the amp, as in `Linearity`.
    amount : ndarray of shape (STRETCH,), float32
        Scratch.
    """
    zero = np.float32(0)
    signal_bits = signal.view(np.int32)
    ends = amount.view(np.int32)
    for begin in range(0, signal.shape[0], STRETCH):
        part = signal[begin : begin + STRETCH]
        n = part.shape[0]
        least, most = _extremes(signal_bits[begin : begin + STRETCH])
        first = last = np.int64(0)
        if most <= INFINITE:
            ends[0] = least
            ends[1] = most
            first = _piece_of(amount[0], knots, nearby, bins_per_unit)
            last = _piece_of(amount[1], knots, nearby, bins_per_unit)
        if most > INFINITE or last - first >= MAX_PIECES:
            for x in range(n):
                value = part[x] if part[x] > zero else zero  # NaN, too, becomes 0
                piece = _piece_of(value, knots, nearby, bins_per_unit)
                above = value - knots[piece]
                part[x] -= ((pieces[piece, 3] * above + pieces[piece, 2]) * above + pieces[piece, 1]) * above + pieces[
                    piece, 0
                ]
            continue
        knot = knots[first]
        c0, c1, c2, c3 = pieces[first, 0], pieces[first, 1], pieces[first, 2], pieces[first, 3]
        if first == last:
            for x in range(n):
                above = (part[x] if part[x] > zero else zero) - knot
                part[x] -= ((c3 * above + c2) * above + c1) * above + c0
            continue
        for x in range(n):
            above = (part[x] if part[x] > zero else zero) - knot
            amount[x] = ((c3 * above + c2) * above + c1) * above + c0
        for piece in range(first + 1, last + 1):
            knot = knots[piece]
            c0, c1, c2, c3 = pieces[piece, 0], pieces[piece, 1], pieces[piece, 2], pieces[piece, 3]
            for x in range(n):
                above = part[x] - knot
                mine = ((c3 * above + c2) * above + c1) * above + c0
                amount[x] = mine if part[x] >= knot else amount[x]
        for x in range(n):
            part[x] -= amount[x]
