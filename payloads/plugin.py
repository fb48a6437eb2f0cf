"""What a payload is: the one interface between science code and the framework.

A payload is a class with a ``name``, a pydantic ``Config`` and a ``run`` that reads from, and adds to,
the `Frame` of one detector. It knows nothing of Redis, queues or stores; a notebook can make a `Frame`
and call it. Third parties register theirs in the entry-point group ``rapid.payloads``.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar, Protocol

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict

from rapid.camera.models import Camera, Detector
from rapid.errors import PayloadError
from rapid.exposure.models import ExposureInfo

Metric = float | int | str | bool | None
"""A number, word or yes/no that a result row may carry; None where it could not be measured."""


class PayloadConfig(BaseModel):
    """Base of every payload's configuration: unknown keys are an error."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class Calibs(Protocol):
    """Where a payload gets calibration planes. The framework supplies it; tests may use a dict."""

    def get(self, kind: str) -> "CalibPlane | None":
        """Return the certified calib of a kind ("bias", "dark", "flat", ...) for this frame, or None."""
        ...


EXCLUDED = "excluded"
"""In a calib's table: 1 for an amp that was switched off in all exposures it was built from. The calib has nothing of it."""


@dataclass(frozen=True)
class CalibPlane:
    """One certified calib for one detector.

    Attributes
    ----------
    calib_id
        Its identity in the calib store; goes into provenance.
    image : ndarray of shape (height, width), float32
        bias: electron; dark: electron/s; flat: dimensionless, mean 1. Read-only, may be memory-mapped.
    table
        Per-amp numbers of the calib (e.g. ``{"C00": {"gain": 1.6}}``), if it has any.
    """

    calib_id: str
    image: NDArray[np.float32]
    variance: NDArray[np.float32] | None = None
    table: Mapping[str, Mapping[str, float]] = field(default_factory=dict)


@dataclass(frozen=True)
class ProductFile:
    """A file that a payload wants to have kept beside its result: a picture, cut-outs.

    Attributes
    ----------
    extension
        End of its name, without the dot: ``jpg``, ``fits``.
    content_type
        As a browser wants to be told: ``image/jpeg``.
    """

    data: bytes
    extension: str
    content_type: str


class NoCalibs:
    """A calib source that has nothing: what `rapid process` uses without a store."""

    def get(self, kind: str) -> CalibPlane | None:  # noqa: ARG002 - the interface's argument
        """Return None for every kind."""
        return None


@dataclass
class Frame:
    """One detector's image on its way through a pipeline, and all that was learned of it.

    Attributes
    ----------
    raw
        The bytes of the raw, as in the file or object. None once no payload needs them.
    image : ndarray of shape (height, width), float32
        Trimmed image; ``unit`` says ADU or electron. NaN never appears: bad pixels are in ``mask``.
        None until a payload has assembled it.
    mask : ndarray of shape (height, width), int32
        Bits as in `payloads.mask.MASK_PLANES`.
    variance : ndarray of shape (height, width), float32, unit squared
    counts : ndarray of shape (height, width), int32
        Of a build: exposures that each pixel is the mean of.
    binned : ndarray of shape (height // 8, width // 8), float32
        Mean of 8x8 blocks, for mosaics; in the detector frame.
    metrics
        Numbers of the detector; the key carries the unit (``psf_fwhm_arcsec``).
    amps
        Numbers per amp, by amp name.
    tables
        Row-wise results by name (e.g. ``"stars"``): lists of equal length by column.
    files
        Files to keep, by name (e.g. ``"preview"``); the worker puts them into the products store.
    applied
        Names of the corrections that were applied, in order.
    calib_ids
        Calibs used, by kind.
    """

    raw: bytes | None
    info: ExposureInfo
    header: Mapping[str, Any]
    camera: Camera
    detector: Detector
    calibs: Calibs = field(default_factory=NoCalibs)
    image: NDArray[np.float32] | None = None
    mask: NDArray[np.int32] | None = None
    variance: NDArray[np.float32] | None = None
    counts: NDArray[np.int32] | None = None
    binned: NDArray[np.float32] | None = None
    unit: str = "ADU"
    metrics: dict[str, Metric] = field(default_factory=dict)
    amps: dict[str, dict[str, Metric]] = field(default_factory=dict)
    tables: dict[str, dict[str, list[Any]]] = field(default_factory=dict)
    files: dict[str, ProductFile] = field(default_factory=dict)
    applied: list[str] = field(default_factory=list)
    calib_ids: dict[str, str] = field(default_factory=dict)
    calib_table: dict[str, dict[str, float]] | None = None
    """Of a build: the calib's numbers by amp name; the amps' metrics if None."""
    inputs: "list[Callable[[], Frame]]" = field(default_factory=list)
    """For a payload that combines exposures: calls that load the other frames, one at a time."""
    excluded_amps: Mapping[str, str] = field(default_factory=dict)
    """Amps that were switched off when this was taken, with the reason: masked, and not measured."""

    @property
    def gain(self) -> float:
        """Electrons per unit of the image: of its amps the median, if no payload has applied theirs."""
        return 1.0 if self.unit == "electron" else float(np.median([amp.gain for amp in self.detector.amps]))

    def assembled(self, payload: str) -> NDArray[np.float32]:
        """Return the image, for a payload that cannot do without it.

        Raises
        ------
        PayloadError
            Raised if no payload has assembled the image yet.
        """
        if self.image is None:
            raise PayloadError(f"{payload} needs an assembled image: put isr or assemble before it in the pipeline")
        return self.image


class Payload(Protocol):
    """A unit of science code run on one detector's image.

    `run` changes ``frame`` in place. It raises `rapid.errors.PayloadError` for a failure it understands;
    anything else it raises ends the job as failed with the traceback.
    """

    name: ClassVar[str]
    version: ClassVar[str]
    Config: ClassVar[type[PayloadConfig]]

    def __init__(self, config: Any) -> None: ...

    def run(self, frame: Frame) -> None:
        """Process the frame in place."""
        ...
