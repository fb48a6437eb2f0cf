"""Put deferred charge back: what a pixel left behind on its way along the serial register, or in the output.

Two effects, each with the numbers of its amp, after Snyder & Roodman (2021), reduced to what can be inverted exactly
in one sweep along a row:

* transfer: at each of its n shifts a pixel leaves the fraction ``cti`` behind, which arrives with the next pixel,
  so pixel x keeps ``1 - n cti`` of its charge and gets ``(n - 1) cti`` of its predecessor's. (That a share falls
  back twice is of the order (n cti)^2, 1e-5 at the worst amps of LSSTCam, and left out.)
* output: the amplifier remembers the brightest recent pixel, at most ``offset_max_electron`` of it, as an offset of
  ``offset_scale`` times its charge that decays over ``offset_decay_px``, and adds it to the pixels that follow.
"""

from collections.abc import Mapping, Sequence

import numpy as np
from numba import njit
from numpy.typing import NDArray

from rapid.errors import PayloadError

PARAMETERS = ("cti", "offset_scale", "offset_decay_px", "offset_max_electron")
"""Columns of the numbers of an amp."""


def cti_parameters(table: Mapping[str, Mapping[str, float]], names: Sequence[str]) -> NDArray[np.float64]:
    """Return the amps' numbers from a calib's table ``{amp: {parameter: value}}``; what is absent has no effect.

    Returns
    -------
    parameters : ndarray of shape (n_amps, 4), float64
        Columns as `PARAMETERS`.

    Raises
    ------
    PayloadError
        Raised, naming amp and parameter, for a number that cannot be.

    Examples
    --------
    >>> cti_parameters({"C00": {"cti": 1e-6}}, ["C00", "C01"])[:, 0].tolist()
    [1e-06, 0.0]
    """
    found = np.zeros((len(names), len(PARAMETERS)))
    found[:, 2] = 1.0
    for place, name in enumerate(names):
        for column, key in enumerate(PARAMETERS):
            if key in table.get(name, {}):
                found[place, column] = float(table[name][key])
        cti, scale, decay_px, limit = found[place]
        for key, value, is_good in (
            ("cti", cti, 0.0 <= cti < 1e-3),
            ("offset_scale", scale, 0.0 <= scale < 0.1),
            ("offset_decay_px", decay_px, 0.0 < decay_px < np.inf),
            ("offset_max_electron", limit, 0.0 <= limit < np.inf),
        ):
            if not is_good:
                raise PayloadError(f"serial CTI of amp {name}: {key} is {value}", amp=name, parameter=key)
    return found


@njit(nogil=True, cache=True)
def _restore_row(row, n_before, cti, scale, keep, limit):  # type: ignore[no-untyped-def] # noqa: ANN001, ANN202
    """Undo both effects along one row in the order it was read."""
    offset = 0.0
    previous = 0.0
    for x in range(row.shape[0]):
        charge = row[x] - offset
        if scale > 0.0:
            offset = max(scale * min(max(charge, 0.0), limit), offset * keep)
        n_shifts = n_before + x
        previous = (charge - (n_shifts - 1) * cti * previous) / (1.0 - n_shifts * cti)
        row[x] = np.float32(previous)


@njit(nogil=True, cache=True)
def _restore(image, place, width, height, n_before, parameters):  # type: ignore[no-untyped-def] # noqa: ANN001, ANN202
    for amp in range(place.shape[0]):
        cti, scale, decay_px, limit = parameters[amp]
        if cti == 0.0 and scale == 0.0:
            continue
        keep = np.exp(-1.0 / decay_px)
        x0, y0, flip_x = place[amp, 0], place[amp, 1], place[amp, 2]
        for y in range(y0, y0 + height):
            row = image[y, x0 : x0 + width]
            if flip_x:
                _restore_row(row[::-1], n_before, cti, scale, keep, limit)
            else:
                _restore_row(row, n_before, cti, scale, keep, limit)


def correct_serial_cti(
    image: NDArray[np.float32],
    place: NDArray[np.int64],
    *,
    width: int,
    height: int,
    n_prescan: int,
    parameters: NDArray[np.float64],
) -> None:
    """Put the deferred charge of every row back, in place.

    Parameters
    ----------
    image : ndarray of shape (detector height, detector width), float32, electron
        Assembled; charge as it was read out: with dark and sky, not flat-fielded. Overwritten.
    place : ndarray of shape (n_amps, 4), int64
        x0, y0, flip_x and flip_y of each amp, as in `payloads.isr.inputs.AmpLayout`.
    width, height
        Imaging pixels of an amp.
    n_prescan
        Serial pixels between the amplifier and the first imaging column.
    parameters : ndarray of shape (n_amps, 4)
        As from `cti_parameters`.
    """
    _restore(image, place, width, height, float(n_prescan + 1), parameters)
