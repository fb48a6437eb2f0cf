"""Payload ``build_crosstalk``: coefficients between all amps of a detector, from spots or any bright light."""

from collections.abc import Iterator
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from payloads.calibration.ptc import TABLE_IMAGE
from payloads.calibration.sequence import Member, With, calibrated, members_of
from payloads.isr.inputs import layout_of
from payloads.isr.payload import Isr, IsrConfig
from payloads.plugin import CalibPlane, Frame, PayloadConfig
from payloads.quality.crosstalk import THRESHOLD_ELECTRON, Crosstalk, measure_crosstalk
from rapid.errors import PayloadError
from rapid.exposure.models import ImageType

USABLE = frozenset({ImageType.SPOT, ImageType.FLAT, ImageType.SCIENCE, ImageType.ENGTEST, ImageType.ACQ})


class CrosstalkConfig(PayloadConfig):
    """Which pixels count, and what is significant."""

    threshold_electron: float = Field(
        default=THRESHOLD_ELECTRON, gt=0, description="Least height of a source pixel above its amp's sky [electron]."
    )
    significant_sigma: float = Field(
        default=5.0, gt=0, description="A residual coefficient counts from so many of its errors on."
    )
    significant: float = Field(default=3e-5, ge=0, description="And only if it is as large as this.")
    linearity: bool = Field(default=True, description="Correct non-linearity if there is a calib.")


def mean_of(found: list[Crosstalk]) -> Crosstalk:
    """Return the weighted mean of the coefficients of several exposures."""
    values = np.array([one.coefficient for one in found])
    errors = np.array([one.error for one in found])
    with np.errstate(divide="ignore", invalid="ignore"):
        weights = np.where(np.isfinite(values) & (errors > 0), errors**-2.0, 0.0)
        total = weights.sum(axis=0)
        mean = np.where(total > 0, np.nansum(weights * np.nan_to_num(values), axis=0) / total, np.nan)
        error = np.where(total > 0, total**-0.5, np.nan)
    return Crosstalk(mean, error, np.sum([one.n_pixels for one in found], axis=0))


class BuildCrosstalk:
    """Measures the coefficients, corrects the same exposures with them, and measures what is left.

    The calib is a table ``{target amp: {source amp: fraction}}``. Writes per target amp ``coefficient_max``,
    ``coefficient_error_median``, ``n_sources`` and ``n_residual``: coefficients that are significant still.
    """

    name: ClassVar[str] = "build_crosstalk"
    version: ClassVar[str] = "1"
    Config = CrosstalkConfig

    def __init__(self, config: CrosstalkConfig) -> None:
        self.config = config
        keep = {"linearity": config.linearity, "flat": False, "interpolate": False, "cosmic_rays": False}
        self._plain = Isr(IsrConfig(crosstalk=False, **keep))
        self._corrected = Isr(IsrConfig(crosstalk=True, **keep))

    def run(self, frame: Frame) -> None:
        """Measure ``frame.inputs``.

        Raises
        ------
        PayloadError
            Raised if no amp has bright light in any exposure.
        """
        members = members_of(frame, what="a crosstalk", kinds=USABLE, least=1)
        found = mean_of([self._measure(part) for part in calibrated(frame, self._plain, members)])
        names = [amp.name for amp in frame.detector.amps]
        table = {
            target: {
                source: float(found.coefficient[i, j])
                for j, source in enumerate(names)
                if np.isfinite(found.coefficient[i, j])
            }
            for i, target in enumerate(names)
        }
        if not any(table.values()):
            raise PayloadError("no exposure has light bright enough, opposite quiet pixels of another amp")
        plane = CalibPlane("candidate", TABLE_IMAGE, table=table)
        left = mean_of([self._measure(part) for part in self._with(members, plane)])
        frame.image, frame.variance, frame.mask, frame.unit = TABLE_IMAGE, None, None, ""
        frame.applied.append("measure_crosstalk")
        frame.calib_table, frame.amps = table, {}
        for i, target in enumerate(names):
            row, error, rest = found.coefficient[i], found.error[i], left.coefficient[i]
            known = np.isfinite(row)
            if not known.any():
                frame.amps[target] = dict.fromkeys(("coefficient_max", "coefficient_error_median", "n_residual"))
                frame.amps[target]["n_sources"] = 0
                continue
            limit = np.maximum(self.config.significant_sigma * left.error[i], self.config.significant)
            frame.amps[target] = {
                "coefficient_max": float(np.max(np.abs(row[known]))),
                "coefficient_error_median": float(np.median(error[known])),
                "n_sources": int(known.sum()),
                "n_residual": int(np.sum(np.abs(rest[np.isfinite(rest)]) > limit[np.isfinite(rest)])),
            }
        frame.metrics.update(
            {
                "n_inputs": len(members),
                "n_coefficients": int(np.isfinite(found.coefficient).sum()),
                "crosstalk_max": float(np.nanmax(np.abs(found.coefficient))),
            }
        )
        frame.tables["crosstalk"] = _rows(names, found.coefficient, found.error, left.coefficient)

    def _measure(self, part: Frame) -> Crosstalk:
        if part.image is None or part.mask is None:
            raise PayloadError(f"exposure {part.info.exposure_id} has no image", exposure=part.info.exposure_id)
        det = part.detector
        layout = layout_of(det.amps, height=det.height, width=det.width)
        return measure_crosstalk(part.image, part.mask, layout, threshold_electron=self.config.threshold_electron)

    def _with(self, members: list[Member], plane: CalibPlane) -> Iterator[Frame]:
        """Return the exposures, corrected with the new coefficients: one at a time, as they are asked for."""

        def load(member: Member) -> Frame:
            part = member.load()
            part.calibs = With(part.calibs, "crosstalk", plane)
            return part

        again = [Member(member.info, lambda m=member: load(m)) for member in members]  # type: ignore[misc] # binds the loop's
        return calibrated(members[0].load(), self._corrected, again)


def _rows(
    names: list[str], coefficient: NDArray[np.float64], error: NDArray[np.float64], residual: NDArray[np.float64]
) -> dict[str, list[str | float]]:
    n = len(names)
    pairs = [(i, j) for i in range(n) for j in range(n) if i != j]
    return {
        "target": [names[i] for i, _ in pairs],
        "source": [names[j] for _, j in pairs],
        "coefficient": [float(coefficient[i, j]) for i, j in pairs],
        "error": [float(error[i, j]) for i, j in pairs],
        "residual": [float(residual[i, j]) for i, j in pairs],
    }
