"""The payload ``donut``: a quick look at a defocused image."""

from typing import ClassVar

import numpy as np

from payloads.focus.donut import DonutSettings, donut_columns, donut_metrics, measure_donuts
from payloads.plugin import Frame, PayloadConfig
from payloads.quality.sky import Workspace


class DonutQuickLook:
    """Diameter, shape and defocus of the donuts of one detector.

    Writes the metrics of `payloads.focus.donut.donut_metrics`, ``sky_level_e``, ``sky_noise_e``,
    ``n_saturated_px``, ``n_bad_px``, and the table ``donuts``.
    """

    name: ClassVar[str] = "donut"
    version: ClassVar[str] = "1"
    Config: ClassVar[type[PayloadConfig]] = DonutSettings

    def __init__(self, config: DonutSettings) -> None:
        self.config = config
        self._workspace = Workspace()

    def run(self, frame: Frame) -> None:
        """Measure the frame's image.

        Raises
        ------
        PayloadError
            Raised if no payload has assembled the image yet.
        """
        frame.image = np.ascontiguousarray(frame.assembled("donut"), dtype=np.float32)
        found = measure_donuts(
            frame.image,
            frame.mask,
            camera=frame.camera,
            detector=frame.detector,
            info=frame.info,
            gain=frame.gain,
            settings=self.config,
            workspace=self._workspace,
        )
        sky = found.sky
        frame.metrics.update(donut_metrics(found))
        frame.metrics.update(
            {
                "sky_level_e": None if sky.level is None else sky.level * frame.gain,
                "sky_noise_e": None if sky.noise is None else sky.noise * frame.gain,
                "n_saturated_px": sky.n_saturated_px,
                "n_bad_px": sky.n_bad_px,
            }
        )
        frame.tables["donuts"] = donut_columns(found)
