"""Keep the pixels of a raw in a recording: whole, binned, or as stamps of its brightest sources.

What was left out is put back as noise of the amp's own level and width, so that a replay goes through the same steps of
instrument signature removal, and measures much the same.
"""

import io
from typing import Any

import numpy as np
from numpy.typing import NDArray

from payloads.raw.segments import SegmentReader, Segments
from rapid.camera.models import Amp, Detector
from rapid.errors import ConfigurationError
from rapid.exposure.fits_header import FitsStructure, scan
from replay.fits_writer import Value, raw_bytes

N_STAMPS = 48
STAMP_PX = 32
MAD_TO_SIGMA = 1.4826
ADC_MAX = (1 << 18) - 1
"""Counts of an 18-bit converter."""


def keep_rice(structure: FitsStructure, data: bytes, detector: Detector) -> bytes:
    """Return a raw losslessly compressed: as it is, if it is so already."""
    if any(hdu.is_compressed_image for hdu in structure.hdus):
        return data
    segments = SegmentReader().read(structure, detector)
    primary: dict[str, Value] = {
        key: value
        for key, value in structure.primary.items()
        if key not in {"SIMPLE", "BITPIX", "NAXIS", "EXTEND", "COMMENT", "HISTORY", ""}
        and isinstance(value, str | int | float | bool | None)
    }
    return raw_bytes(primary, _standard(segments, detector), detector)


def keep_binned(structure: FitsStructure, detector: Detector, n: int) -> bytes:
    """Return means over squares of ``n`` pixels, with level and noise of each amp."""
    segments = _read(structure, detector)
    blocks, levels = [], []
    for pixels, amp in zip(segments.pixels, segments.amps, strict=True):
        data = np.asarray(pixels[amp.data.slices], dtype=np.float32)
        padded = np.pad(data, ((0, -data.shape[0] % n), (0, -data.shape[1] % n)), mode="edge")
        means = padded.reshape(padded.shape[0] // n, n, padded.shape[1] // n, n).mean(axis=(1, 3))
        blocks.append(np.rint(means * 4).astype(np.int32))
        expanded = np.repeat(np.repeat(means, n, axis=0), n, axis=1)[: data.shape[0], : data.shape[1]]
        levels.append((*_bias(pixels, amp), _width(data - expanded)))
    return _pack(n=np.int32(n), blocks=np.stack(blocks), levels=np.array(levels, dtype=np.float32))


def read_binned(data: bytes, detector: Detector, rng: np.random.Generator) -> NDArray[np.int32]:
    """Return counts whose means over squares are the kept ones.

    Returns
    -------
    stack : ndarray of shape (n_amps, raw_height, raw_width), int32, ADU
    """
    kept = _unpack(data, detector, "blocks", "levels", "n")
    n = int(kept["n"])
    stack = _level(kept["levels"][:, :2], detector, rng)
    for place, amp in enumerate(detector.amps):
        means = kept["blocks"][place].astype(np.float32) / 4
        expanded = np.repeat(np.repeat(means, n, axis=0), n, axis=1)[: amp.data.height, : amp.data.width]
        noise = rng.standard_normal(expanded.shape, dtype=np.float32) * kept["levels"][place, 2]
        stack[place][amp.data.slices] = expanded + noise
    return _counts(stack)


def keep_stamps(structure: FitsStructure, detector: Detector) -> bytes:
    """Return stamps of the brightest sources, with level and noise of each amp."""
    segments = _read(structure, detector)
    levels, found = [], []
    for place, (pixels, amp) in enumerate(zip(segments.pixels, segments.amps, strict=True)):
        data = np.asarray(pixels[amp.data.slices], dtype=np.float32)
        sky = float(np.median(data))
        levels.append((*_bias(pixels, amp), sky, _width(data - sky)))
        tiles = np.pad(data, ((0, -data.shape[0] % STAMP_PX), (0, -data.shape[1] % STAMP_PX)), constant_values=sky)
        peaks = tiles.reshape(tiles.shape[0] // STAMP_PX, STAMP_PX, tiles.shape[1] // STAMP_PX, STAMP_PX).max(
            axis=(1, 3)
        )
        found += [
            (float(peaks[row, column]) - sky, place, row * STAMP_PX, column * STAMP_PX)
            for row, column in np.ndindex(peaks.shape)
        ]
    found.sort(reverse=True)
    places, stamps = [], []
    for _, place, row, column in found[:N_STAMPS]:
        data = np.asarray(segments.pixels[place][segments.amps[place].data.slices], dtype=np.int32)
        stamp = data[row : row + STAMP_PX, column : column + STAMP_PX]
        places.append((place, row, column))
        stamps.append(np.pad(stamp, ((0, STAMP_PX - stamp.shape[0]), (0, STAMP_PX - stamp.shape[1]))))
    return _pack(
        places=np.array(places, dtype=np.int32),
        stamps=np.stack(stamps),
        levels=np.array(levels, dtype=np.float32),
    )


def read_stamps(data: bytes, detector: Detector, rng: np.random.Generator) -> NDArray[np.int32]:
    """Return counts with the kept sources on a level of noise.

    Returns
    -------
    stack : ndarray of shape (n_amps, raw_height, raw_width), int32, ADU
    """
    kept = _unpack(data, detector, "places", "stamps", "levels")
    stack = _level(kept["levels"][:, :2], detector, rng)
    for place, amp in enumerate(detector.amps):
        shape = (amp.data.height, amp.data.width)
        sky, width = kept["levels"][place, 2:]
        stack[place][amp.data.slices] = sky + width * rng.standard_normal(shape, dtype=np.float32)
    for (place, row, column), stamp in zip(kept["places"], kept["stamps"], strict=True):
        target = stack[place][detector.amps[place].data.slices][row : row + STAMP_PX, column : column + STAMP_PX]
        target[...] = stamp[: target.shape[0], : target.shape[1]]
    return _counts(stack)


def _read(structure: FitsStructure, detector: Detector) -> Segments:
    segments = SegmentReader().read(structure, detector)
    return Segments(_standard(segments, detector), detector.amps)


def _standard(segments: Segments, detector: Detector) -> NDArray[np.int32]:
    """Return the counts laid out as the camera's definition says, whatever overscan this raw has."""
    first = detector.amps[0]
    if segments.pixels.shape[1:] == (first.raw_height, first.raw_width):
        return np.asarray(segments.pixels, dtype=np.int32)
    stack = np.empty((len(detector.amps), first.raw_height, first.raw_width), dtype=np.int32)
    for place, (pixels, amp) in enumerate(zip(segments.pixels, segments.amps, strict=True)):
        stack[place] = round(_bias(pixels, amp)[0])
        stack[place][detector.amps[place].data.slices] = pixels[amp.data.slices]
    return stack


def _bias(pixels: NDArray[Any], amp: Amp) -> tuple[float, float]:
    """Return level and noise of an amp's overscan [ADU]."""
    overscan = amp.serial_overscan or amp.parallel_overscan
    found = np.asarray(pixels[overscan.slices] if overscan is not None else pixels, dtype=np.float32)
    level = float(np.median(found))
    return level, _width(found - level)


def _width(values: NDArray[np.float32]) -> float:
    return float(MAD_TO_SIGMA * np.median(np.abs(values - np.median(values))))


def _level(levels: NDArray[np.float32], detector: Detector, rng: np.random.Generator) -> NDArray[np.float32]:
    first = detector.amps[0]
    shape = (len(detector.amps), first.raw_height, first.raw_width)
    return rng.standard_normal(shape, dtype=np.float32) * levels[:, 1, None, None] + levels[:, 0, None, None]


def _counts(stack: NDArray[np.float32]) -> NDArray[np.int32]:
    return np.clip(np.rint(stack), 0, ADC_MAX).astype(np.int32)


def _pack(**arrays: Any) -> bytes:
    buffer = io.BytesIO()
    np.savez_compressed(buffer, **arrays)
    return buffer.getvalue()


def _unpack(data: bytes, detector: Detector, *names: str) -> dict[str, NDArray[Any]]:
    try:
        with np.load(io.BytesIO(data), allow_pickle=False) as kept:
            arrays = {name: kept[name] for name in names}
    except (OSError, ValueError, KeyError) as error:
        raise ConfigurationError("pixels", f"{detector.name}: {error}") from error
    if len(arrays["levels"]) != len(detector.amps):
        raise ConfigurationError("pixels", f"{detector.name}: kept of {len(arrays['levels'])} amps")
    return arrays


def keep(kind: str, data: bytes, detector: Detector, *, binning: int) -> bytes:
    """Return what a recording keeps of a raw; ``kind`` is that of `replay.recording.PixelKind`, not ``seed``."""
    structure = scan(data)
    if kind == "rice":
        return keep_rice(structure, bytes(structure.data), detector)
    return keep_binned(structure, detector, binning) if kind == "binned" else keep_stamps(structure, detector)
