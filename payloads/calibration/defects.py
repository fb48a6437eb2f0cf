"""Payload ``build_defects``: pixels and columns that are no good, from darks and flats."""

from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from payloads.calibration.sequence import Member, Without, members_of
from payloads.combine.payload import BuildConfig, BuildDark, BuildFlat
from payloads.isr.assemble import bin_image
from payloads.plugin import Frame, PayloadConfig
from rapid.camera.models import Amp
from rapid.errors import PayloadError
from rapid.exposure.models import ImageType

HOT, COLD, COLUMN, NO_VALUE = 1, 2, 4, 8
"""What is wrong with a pixel, as bits of the calib's image: any of them masks it."""

SMOOTHING_PX = 33
"""Light changes little over so many pixels: a pixel's response is compared with the median of its neighbourhood."""

HALF = 0.5
"""Of a limit: what is above that, and not masked, is counted as an outlier that was nearly a defect."""


class DefectsConfig(PayloadConfig):
    """What a defect is."""

    bright_e_per_s: float = Field(default=5.0, gt=0, description="Dark current of a hot pixel [electron/s].")
    bright_sigma: float = Field(default=4.8, gt=0, description="And at least so far above the amp's scatter.")
    cold_fraction: float = Field(default=0.8, gt=0, lt=1, description="Response below which a pixel is cold.")
    bright_fraction: float = Field(default=1.2, gt=1, description="Response above which a pixel is bright in light.")
    response_sigma: float = Field(default=5.0, gt=0, description="And at least so far from the amp's scatter.")
    column_pixels: int = Field(default=50, ge=2, description="Bad pixels in an amp's column that make it bad.")
    column_gap: int = Field(
        default=30, ge=0, description="Good stretches of such a column that are shorter are bad as well [px]."
    )


@dataclass(frozen=True)
class DefectMap:
    """Defects of a detector.

    Attributes
    ----------
    bits : ndarray of shape (height, width), uint8
        HOT, COLD, COLUMN, NO_VALUE; 0 is good.
    n_columns
        Bad columns, counted per amp.
    """

    bits: NDArray[np.uint8]
    n_columns: int


def smooth_of(image: NDArray[np.float32], amps: tuple[Amp, ...]) -> NDArray[np.float32]:
    """Return the median of every pixel's neighbourhood, within its amp.

    Blocks of `SMOOTHING_PX`, medians of them, and straight lines between: a thousand times faster than a sliding median,
    and as good where light changes slowly.
    """
    from scipy.ndimage import zoom

    smooth = np.ones_like(image)
    for amp in amps:
        part = image[amp.trimmed.slices]
        n_y, n_x = max(part.shape[0] // SMOOTHING_PX, 1), max(part.shape[1] // SMOOTHING_PX, 1)
        rows = np.array_split(np.arange(part.shape[0]), n_y)
        columns = np.array_split(np.arange(part.shape[1]), n_x)
        blocks = np.array(
            [[np.median(part[r[0] : r[-1] + 1, c[0] : c[-1] + 1]) for c in columns] for r in rows], dtype=np.float32
        )
        factors = (part.shape[0] / n_y, part.shape[1] / n_x)
        smooth[amp.trimmed.slices] = zoom(blocks, factors, order=1, mode="nearest", grid_mode=True)[
            : part.shape[0], : part.shape[1]
        ]
    return smooth


def _scatter(values: NDArray[np.floating[Any]]) -> float:
    """Return the robust scatter of values."""
    if values.size == 0:
        return 0.0
    return 1.4826 * float(np.median(np.abs(values - np.median(values))))


def block_columns(bad: NDArray[np.bool_], *, least: int, gap: int) -> tuple[NDArray[np.bool_], int]:
    """Return the pixels of bad columns, and how many columns are bad.

    Parameters
    ----------
    bad : ndarray of shape (height, width), bool
        One amp. Not modified.
    least
        Bad pixels that make a column bad: from its first to its last one, but for good stretches.
    gap
        Good stretches of at least this length stay good [px].
    """
    blocked = np.zeros_like(bad)
    counts = bad.sum(axis=0)
    chosen = np.flatnonzero(counts >= least)
    for column in chosen:
        rows = np.flatnonzero(bad[:, column])
        for first, last in pairwise(rows):
            if last - first <= max(gap, 1):
                blocked[first : last + 1, column] = True
        blocked[rows, column] = True
    return blocked, len(chosen)


def find_defects(
    dark: NDArray[np.float32] | None,
    flat: NDArray[np.float32] | None,
    empty: NDArray[np.bool_],
    amps: tuple[Amp, ...],
    config: DefectsConfig,
) -> DefectMap:
    """Find the defects of a detector.

    Parameters
    ----------
    dark : ndarray of shape (height, width), float32, electron/s
        Combined; None without darks.
    flat : ndarray of the same shape, float32
        Combined, mean 1; None without flats.
    empty : ndarray of the same shape, bool
        Pixels that no exposure measured.
    """
    bits = np.where(empty, np.uint8(NO_VALUE), np.uint8(0))
    response = None if flat is None else flat / np.maximum(smooth_of(flat, amps), np.float32(1e-6))
    n_columns = 0
    for amp in amps:
        part = bits[amp.trimmed.slices]
        if dark is not None:
            values = dark[amp.trimmed.slices]
            middle = float(np.median(values))
            limit = max(config.bright_e_per_s, config.bright_sigma * _scatter(values))
            part[values - middle > limit] |= HOT
        if response is not None:
            relative = response[amp.trimmed.slices]
            spread = config.response_sigma * _scatter(relative)
            part[relative < min(config.cold_fraction, 1.0 - spread)] |= COLD
            part[relative > max(config.bright_fraction, 1.0 + spread)] |= HOT
        # A column of a small amp is as bad as one of a large one: half of it is enough.
        least = min(config.column_pixels, max(amp.trimmed.height // 2, 2))
        blocked, n = block_columns(part != 0, least=least, gap=config.column_gap)
        part[blocked] |= COLUMN
        n_columns += n
    return DefectMap(bits, n_columns)


class BuildDefects:
    """Combines darks and flats, and finds the pixels that stand out.

    The calib's image says what is wrong with each pixel (1 hot, 2 cold, 4 column, 8 no value; 0 is good). Writes per amp
    ``n_defects``, ``n_hot``, ``n_cold``, ``defect_fraction`` and ``unmasked_outlier_fraction``, and for the detector
    ``n_bad_columns`` beside. Of darks or flats alone it finds what those show.
    """

    name: ClassVar[str] = "build_defects"
    version: ClassVar[str] = "1"
    Config = DefectsConfig

    def __init__(self, config: DefectsConfig) -> None:
        self.config = config

    def run(self, frame: Frame) -> None:
        """Find the defects in ``frame.inputs``.

        Raises
        ------
        PayloadError
            Raised if there are neither two darks nor two flats.
        """
        members = members_of(frame, what="defects", kinds={ImageType.DARK, ImageType.FLAT}, least=2)
        darks = [member for member in members if member.info.image_type is ImageType.DARK]
        flats = [member for member in members if member.info.image_type is ImageType.FLAT]
        if len(darks) < 2 and len(flats) < 2:
            raise PayloadError(f"{len(darks)} dark and {len(flats)} flat exposures: two of a kind are needed")
        dark = self._combine(frame, BuildDark, darks)
        flat = self._combine(frame, BuildFlat, flats)
        counts = [one.counts for one in (dark, flat) if one is not None and one.counts is not None]
        empty = np.zeros(counts[0].shape, dtype=bool)
        for count in counts:
            empty |= count == 0
        planes = [one.image if one is not None else None for one in (dark, flat)]
        off = {amp: why for one in (dark, flat) if one is not None for amp, why in one.excluded_amps.items()}
        frame.excluded_amps = off
        amps = tuple(amp for amp in frame.detector.amps if amp.name not in off)
        found = find_defects(planes[0], planes[1], empty, amps, self.config)
        frame.image = found.bits.astype(np.float32)
        frame.variance, frame.mask, frame.unit = None, None, ""
        frame.binned = bin_image((found.bits != 0).astype(np.float32), 8)
        frame.applied.append("find_defects")
        frame.amps, frame.calib_table = {}, {}
        is_on = np.zeros(found.bits.shape, dtype=bool)
        for amp in amps:
            is_on[amp.trimmed.slices] = True
        nearly = self._nearly(planes[0], planes[1], amps) & (found.bits == 0)
        for amp in amps:
            part = found.bits[amp.trimmed.slices]
            frame.amps[amp.name] = {
                "n_defects": int(np.count_nonzero(part)),
                "n_hot": int(np.count_nonzero(part & HOT)),
                "n_cold": int(np.count_nonzero(part & COLD)),
                "defect_fraction": float(np.mean(part != 0)),
                "unmasked_outlier_fraction": float(np.mean(nearly[amp.trimmed.slices])),
            }
        frame.metrics.update(
            {
                "n_inputs": len(members),
                "n_darks": len(darks),
                "n_flats": len(flats),
                "n_defects": int(np.count_nonzero(found.bits[is_on])),
                "n_bad_columns": found.n_columns,
                "defect_fraction": float(np.mean(found.bits[is_on] != 0)) if amps else None,
            }
        )

    def _combine(self, frame: Frame, build: Callable[[BuildConfig], Any], members: list[Member]) -> Frame | None:
        """Return the combined dark or flat, made without the defects that are known so far."""
        if len(members) < 2:
            return None

        def load(member: Member) -> Frame:
            part = member.load()
            part.calibs = Without(part.calibs, "defects")
            return part

        whole = members[-1].load()
        whole.inputs = [lambda m=member: load(m) for member in members]  # type: ignore[misc] # binds the loop's
        whole.raw = None
        build(BuildConfig()).run(whole)
        frame.detector = whole.detector
        frame.applied += [step for step in whole.applied if step not in frame.applied]
        frame.calib_ids.update(whole.calib_ids)
        return whole

    def _nearly(
        self, dark: NDArray[np.float32] | None, flat: NDArray[np.float32] | None, amps: tuple[Amp, ...]
    ) -> NDArray[np.bool_]:
        """Return the pixels that are more than half as far out as a defect."""
        some = dark if dark is not None else flat
        found = np.zeros(some.shape if some is not None else (0, 0), dtype=bool)
        config = self.config
        response = None if flat is None else flat / np.maximum(smooth_of(flat, amps), np.float32(1e-6))
        for amp in amps:
            part = found[amp.trimmed.slices]
            if dark is not None:
                values = dark[amp.trimmed.slices]
                limit = max(config.bright_e_per_s, config.bright_sigma * _scatter(values))
                part |= values - float(np.median(values)) > HALF * max(
                    limit, 2 * config.bright_sigma * _scatter(values)
                )
            if response is not None:
                relative = response[amp.trimmed.slices]
                limit = max(HALF * (1.0 - config.cold_fraction), config.response_sigma * _scatter(relative))
                part |= np.abs(relative - 1.0) > limit
        return found
