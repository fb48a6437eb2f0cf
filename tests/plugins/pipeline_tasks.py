"""A small pipeline of PipelineTasks as somebody else would write it: it knows of no Rapid Analysis."""

import astropy.table
import numpy as np
from lsst.pex import config as pex_config
from lsst.pipe import base as pipe_base
from lsst.pipe.base import connectionTypes

DIMENSIONS = ("instrument", "visit", "detector")


class SubtractSkyConnections(pipe_base.PipelineTaskConnections, dimensions=DIMENSIONS):
    image = connectionTypes.Input(name="quick_image", storageClass="NumpyArray", doc="Image.", dimensions=DIMENSIONS)
    subtracted = connectionTypes.Output(
        name="quick_subtracted", storageClass="NumpyArray", doc="Image less its sky.", dimensions=DIMENSIONS
    )
    sky = connectionTypes.Output(
        name="quick_sky", storageClass="StructuredDataDict", doc="The sky.", dimensions=DIMENSIONS
    )


class SubtractSkyConfig(pipe_base.PipelineTaskConfig, pipelineConnections=SubtractSkyConnections):
    percentile = pex_config.RangeField("Where the sky is.", dtype=float, default=50.0, min=0.0, max=100.0)


class SubtractSkyTask(pipe_base.PipelineTask):
    ConfigClass = SubtractSkyConfig
    _DefaultName = "subtractSky"

    def run(self, image):
        if image.max() < 0:
            raise pipe_base.NoWorkFound("no light")
        if not np.isfinite(image).all():
            raise ValueError("pixels that are no numbers")
        level = float(np.percentile(image, self.config.percentile))
        return pipe_base.Struct(subtracted=image - level, sky={"level": level, "is_dark": level < 1.0})


class FindPeaksConnections(pipe_base.PipelineTaskConnections, dimensions=DIMENSIONS):
    image = connectionTypes.Input(
        name="quick_subtracted", storageClass="NumpyArray", doc="Image less its sky.", dimensions=DIMENSIONS
    )
    header = connectionTypes.Input(
        name="quick_header", storageClass="StructuredDataDict", doc="Header.", dimensions=DIMENSIONS
    )
    peaks = connectionTypes.Output(
        name="quick_peaks", storageClass="ArrowAstropy", doc="Bright pixels.", dimensions=DIMENSIONS
    )
    summary = connectionTypes.Output(
        name="quick_summary", storageClass="StructuredDataDict", doc="Numbers.", dimensions=DIMENSIONS
    )


class FindPeaksConfig(pipe_base.PipelineTaskConfig, pipelineConnections=FindPeaksConnections):
    threshold = pex_config.Field("Over the noise.", dtype=float, default=5.0)


class FindPeaksTask(pipe_base.PipelineTask):
    ConfigClass = FindPeaksConfig
    _DefaultName = "findPeaks"

    def run(self, image, header):
        noise = 1.4826 * float(np.median(np.abs(image)))
        y, x = np.nonzero(image > self.config.threshold * noise)
        peaks = astropy.table.Table({"x": x, "y": y, "value": image[y, x]})
        numbers = {"noise": noise, "n": len(peaks), "object": header.get("OBJECT"), "limits": {"low": float("nan")}}
        return pipe_base.Struct(peaks=peaks, summary=numbers)
