"""What is left of a bias, dark or flat once the certified calib of its kind is taken out: the numbers of its verification.

As it arrives an exposure is looked at with its own structure in it, for trends; whether the calib still fits is another
question, answered here without calibrating anything twice.
"""

import math

import numpy as np
from numpy.typing import NDArray

from payloads.mask import CR, NOT_FOR_STATISTICS
from payloads.plugin import Frame, Metric
from payloads.quality.calibration_sums import MIN_PIXELS, NO_MASK, measure_region, sums
from rapid.camera.models import Amp
from rapid.errors import PayloadError

CORNER_PX = 200
"""Side of the corner that is looked at, as in cp_verify; half the amp if that is smaller."""

SAMPLED_ROWS = 16
"""Every so many rows tell what a calib's variance is."""

NUMBERS = (
    "read_noise_expected_e",
    "read_noise_source",
    "amp_corner_e",
    "residual_mean_e",
    "residual_stdev_e",
    "residual_n_px",
    "residual_calib_variance_e2",
    "cr_noise_e",
)
"""What is added to an amp's row."""


def residual_image(frame: Frame) -> NDArray[np.float32] | None:
    """Return the image without what the certified calib of its own kind says is in it.

    Returns
    -------
    residual : ndarray of shape (height, width), float32, the frame's unit
        bias: minus the bias; dark: minus the dark current of its time; flat: over the flat. The frame's own image if
        that was calibrated so already; None without a calib.

    Raises
    ------
    PayloadError
        Raised if the calib is not of the detector's size.
    """
    kind = frame.info.image_type.value
    if frame.image is None or kind in frame.applied:
        return frame.image
    if frame.unit != "electron" or kind not in {"bias", "dark", "flat"}:
        return None
    calib = frame.calibs.get(kind)
    if calib is None:
        return None
    if calib.image.shape != frame.image.shape:
        raise PayloadError(
            f"{kind} {calib.calib_id} is of {calib.image.shape[::-1]} px, the image {frame.image.shape[::-1]}",
            calib_id=calib.calib_id,
        )
    frame.calib_ids[kind] = calib.calib_id
    if kind == "bias":
        return frame.image - calib.image
    if kind == "dark":
        time_s = frame.info.dark_time_s or frame.info.exposure_time_s
        return None if not time_s else frame.image - np.float32(time_s) * calib.image
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(calib.image > 0, frame.image / calib.image, np.float32(np.nan)).astype(np.float32)


def _corner(amp: Amp) -> tuple[int, int, int, int]:
    """Return the box of the pixels that are read first."""
    box = amp.trimmed
    w, h = min(CORNER_PX, box.width // 2), min(CORNER_PX, box.height // 2)
    x0 = box.x1 - w if amp.flip_x else box.x0
    y0 = box.y1 - h if amp.flip_y else box.y0
    return x0, y0, x0 + w, y0 + h


def _calib_variance(frame: Frame, amp: Amp, level: float) -> float | None:
    """Return the variance that the calib brings into a pixel of an amp [electron squared]; None if it does not say."""
    kind = frame.info.image_type.value
    calib = frame.calibs.get(kind)
    if calib is None or calib.variance is None or frame.image is None or calib.variance.shape != frame.image.shape:
        return None
    rows, columns = amp.trimmed.slices
    found = float(np.median(calib.variance[rows.start : rows.stop : SAMPLED_ROWS, columns]))
    if kind == "dark":
        found *= (frame.info.dark_time_s or frame.info.exposure_time_s or 0.0) ** 2
    elif kind == "flat":
        found *= level**2
    return found if math.isfinite(found) else None


def add_residuals(frame: Frame, rows: dict[str, dict[str, Metric]], *, clip_sigma: float, n_iterations: int) -> None:
    """Add to every amp's row what its verification needs.

    ``residual_mean_e``, ``residual_stdev_e`` and ``residual_n_px`` (clipped), ``residual_calib_variance_e2`` (what the calib
    itself adds to a pixel's variance), ``cr_noise_e`` (scatter of all pixels but
    cosmic rays and bad ones, not clipped), ``amp_corner_e``, and ``read_noise_expected_e`` with ``read_noise_source``:
    ptc or camera.
    """
    if frame.image is None:
        return
    residual = residual_image(frame)
    mask = frame.mask
    ptc = frame.calibs.get("ptc")
    for amp in frame.detector.amps:
        row = rows.setdefault(amp.name, {})
        if frame.amps.get(amp.name, {}).get("excluded"):
            row |= dict.fromkeys(NUMBERS)
            continue
        known = ptc.table.get(amp.name, {}).get("read_noise") if ptc else None
        if known is not None and math.isfinite(known) and known > 0:
            row |= {"read_noise_expected_e": float(known), "read_noise_source": "ptc"}
        else:
            row |= {"read_noise_expected_e": amp.read_noise, "read_noise_source": "camera"}
        gain = 1.0 if frame.unit == "electron" else amp.gain
        corner = measure_region(
            frame.image if residual is None else residual,
            mask,
            _corner(amp),
            clip_sigma=clip_sigma,
            n_iterations=n_iterations,
        )
        row["amp_corner_e"] = corner.mean * gain if corner else None
        row |= dict.fromkeys(name for name in NUMBERS if name.startswith("residual_") or name == "cr_noise_e")
        if residual is None:
            continue
        box = (amp.trimmed.x0, amp.trimmed.y0, amp.trimmed.x1, amp.trimmed.y1)
        found = measure_region(residual, mask, box, clip_sigma=clip_sigma, n_iterations=n_iterations)
        row["residual_mean_e"] = found.mean * gain if found else None
        row["residual_stdev_e"] = found.stdev * gain if found else None
        row["residual_n_px"] = found.n_used if found else 0
        row["residual_calib_variance_e2"] = _calib_variance(frame, amp, found.mean if found else 0.0)
        if found is not None:
            big = float(np.finfo(np.float32).max)
            planes = NO_MASK if mask is None else mask
            n, total, squares, _, _ = sums(residual, planes, NOT_FOR_STATISTICS | CR, box, -big, big, found.mean)
            if n >= MIN_PIXELS:
                row["cr_noise_e"] = math.sqrt(max(squares - total * total / n, 0.0) / (n - 1)) * gain
