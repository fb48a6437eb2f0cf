"""Routes of pictures to zoom into. Tiles have the version of what they show in their address, so that browsers keep them."""

import asyncio
import threading
from collections import OrderedDict
from typing import Annotated

import cv2
import numpy as np
from fastapi import APIRouter, Path, Query
from numpy.typing import NDArray
from starlette.responses import Response

from rapid.camera.models import Detector
from rapid.display.api import ERRORS, DetectorId, ExposureId
from rapid.display.archive import Archive
from rapid.display.images.calibrated import calibrate, calibrated_id
from rapid.display.images.darkroom import Darkroom, Developed, DevelopError
from rapid.display.images.models import ImageView, PixelsView
from rapid.errors import NotFoundError
from rapid.gather.mosaic import to_jpeg, upright
from rapid.gather.pieces import read_binned
from rapid.gather.pyramid import QUALITY, TILE_PX, Pyramid, PyramidInfo
from rapid.gather.stretch import Curve, Stretch
from rapid.products.naming import is_safe_key
from rapid.products.store import ProductsStore
from rapid.results.models import DetectorResult

N_PYRAMIDS = 6
"""Archives of 20 MB kept open: two of the newest exposure, and those of exposures people look at."""
SCALES = (1, 2, 4)
"""Below the mosaic's own, in which an image of a detector is shown."""
MAX_PATCH_PX = 128
FOREVER = "public, max-age=31536000, immutable"

Scale = Annotated[int, Path(ge=1, le=65536, description="Detector pixels to a side of a tile's pixel.")]
Place = Annotated[int, Path(ge=0, le=100_000)]


class Pyramids:
    """The last opened tile archives."""

    def __init__(self, products: ProductsStore) -> None:
        self._products = products
        self._open: OrderedDict[str, Pyramid] = OrderedDict()
        self._lock = threading.Lock()

    def of(self, key: str) -> Pyramid:
        """Return a pyramid by its key; raises `NotFoundError` or `StoreError`. Blocks; safe for threads."""
        with self._lock:
            found = self._open.get(key)
            if found is not None:
                self._open.move_to_end(key)
                return found
        if not is_safe_key(key) or not key.endswith(".zip"):
            raise NotFoundError("tile pyramid", key[:200])
        opened = Pyramid(self._products.get(key))
        with self._lock:
            self._open[key] = opened
            while len(self._open) > N_PYRAMIDS:
                self._open.popitem(last=False)
        return opened


def image_routes(archive: Archive, products: ProductsStore, darkroom: Darkroom) -> APIRouter:
    """Return the routes of tiles and images."""
    router = APIRouter(responses=ERRORS, tags=["pictures"])
    pyramids = Pyramids(products)

    async def calibrated_of(result: DetectorResult, developed: Developed) -> Developed:
        """Take out of an image what the calibrated mosaic of its exposure takes out."""
        summaries = (await archive.exposure(result.exposure)).summaries
        summary = next((one for one in summaries if one.pipeline == result.pipeline), None)
        key = summary.products.get("mosaic_calibrated_tiles") if summary is not None else None
        binned_key = result.products.get("binned")
        if key is None or binned_key is None:
            raise NotFoundError("calibrated mosaic of exposure", result.exposure)
        info = (await asyncio.to_thread(pyramids.of, key)).info
        factor = info.factors.get(result.detector, 1.0)
        image_id = calibrated_id(developed.image_id, binned_key=binned_key, factor=factor, unit=info.unit)

        def make(pixels: NDArray[np.float32]) -> NDArray[np.float32]:
            return calibrate(pixels, read_binned(products.get(binned_key)), factor=factor)

        try:
            return await darkroom.derived(image_id, developed, make, unit=info.unit)
        except ValueError as error:
            raise DevelopError(f"cannot make the image: its sky is not known, {error}") from error

    @router.get("/tiles/{key:path}/info", summary="What a mosaic's tiles are")
    async def info(key: str) -> PyramidInfo:
        """Return scales, sizes and the stretch of a tile pyramid, by the key that an exposure names."""
        return (await asyncio.to_thread(pyramids.of, key)).info

    @router.get(
        "/tiles/{key:path}/{scale}/{column}/{row}",
        summary="A tile of a mosaic",
        response_class=Response,
        responses={200: {"content": {"image/jpeg": {}}}, 204: {"description": "No detector there"}},
    )
    async def tile(key: str, scale: Scale, column: Place, row: Place) -> Response:
        """Return a tile as a JPEG; columns and rows count from the upper left."""
        data = await asyncio.to_thread(lambda: pyramids.of(key).tile(scale, column, row))
        headers = {"Cache-Control": FOREVER}
        return (
            Response(status_code=204, headers=headers)
            if data is None
            else Response(data, media_type="image/jpeg", headers=headers)
        )

    @router.get("/api/exposures/{exposure_id}/detectors/{detector}/image", summary="A detector at full resolution")
    async def image(
        exposure_id: ExposureId,
        detector: DetectorId,
        pipeline: Annotated[
            str | None, Query(description="Whose image; that of the exposure's numbers if left out.")
        ] = None,
        calibrated: Annotated[
            bool, Query(description="Without sky and on the scale of the calibrated mosaic; else post-ISR.")
        ] = False,
    ) -> ImageView:
        """Make the image of a detector from its raw, or find it made, and return what a viewer needs."""
        result = await _result_of(archive, exposure_id, detector, pipeline)
        developed = await darkroom.image_of(result)
        if calibrated:
            developed = await calibrated_of(result, developed)
        place = archive.camera.by_id[detector]
        height, width = developed.pixels.shape[:: -1 if place.n_quarter % 2 else 1]
        return ImageView(
            exposure_id=exposure_id,
            detector=detector,
            name=place.name,
            image_id=developed.image_id,
            width=width,
            height=height,
            n_quarter=place.n_quarter,
            tile_px=TILE_PX,
            scales=list(SCALES),
            stretch=developed.stretch,
            median=developed.median,
            noise=developed.noise,
            unit=developed.answer.unit,
            is_calibrated=calibrated,
            applied=developed.answer.applied,
            calibs=developed.answer.calibs,
            notes=developed.answer.notes,
            took_s=developed.answer.took_s,
        )

    @router.get(
        "/api/images/{image_id}/{detector}/{scale}/{column}/{row}",
        summary="A tile of a detector's image",
        response_class=Response,
        responses={200: {"content": {"image/jpeg": {}}}},
    )
    async def image_tile(
        image_id: str,
        detector: DetectorId,
        scale: Scale,
        column: Place,
        row: Place,
        curve: Annotated[Curve | None, Query(description="Shape of the stretch.")] = None,
        low: Annotated[float | None, Query(description="Value of the darkest grey.")] = None,
        high: Annotated[float | None, Query(description="Value of the brightest grey.")] = None,
        softening: Annotated[float | None, Query(gt=0, description="Of an asinh stretch.")] = None,
    ) -> Response:
        """Return a tile as a JPEG, turned as the detector lies in the focal plane."""
        developed = darkroom.known(image_id)
        place = archive.camera.by_id.get(detector)
        if place is None or scale not in SCALES:
            raise NotFoundError("tile", f"{detector}/{scale}")
        chosen = developed.stretch.model_copy(
            update={
                name: value
                for name, value in (("curve", curve), ("low", low), ("high", high), ("softening", softening))
                if value is not None
            }
        )
        if not chosen.high > chosen.low:
            raise NotFoundError("stretch", f"from {chosen.low} to {chosen.high}")
        data = await asyncio.to_thread(_draw, developed, place, scale, column, row, chosen)
        return Response(data, media_type="image/jpeg", headers={"Cache-Control": FOREVER})

    @router.get("/api/images/{image_id}/pixels", summary="Values of some pixels")
    async def pixels(
        image_id: str,
        x: Annotated[int, Query(ge=0, le=100_000, description="First column, detector frame [px].")],
        y: Annotated[int, Query(ge=0, le=100_000, description="First row [px].")],
        width: Annotated[int, Query(ge=1, le=MAX_PATCH_PX)] = 64,
        height: Annotated[int, Query(ge=1, le=MAX_PATCH_PX)] = 64,
    ) -> PixelsView:
        """Return the values of a rectangle of an image."""
        developed = darkroom.known(image_id)
        patch = np.asarray(developed.pixels[y : y + height, x : x + width])
        if patch.size == 0:
            raise NotFoundError("pixel", f"{x}, {y}")
        values = [[round(float(v), 3) if np.isfinite(v) else None for v in row] for row in patch]
        return PixelsView(
            x0=x, y0=y, width=patch.shape[1], height=patch.shape[0], values=values, unit=developed.answer.unit
        )

    return router


async def _result_of(archive: Archive, exposure_id: int, detector: int, pipeline: str | None) -> DetectorResult:
    view = await archive.detector(exposure_id, detector)
    wanted = pipeline or (await archive.exposure(exposure_id)).row.pipeline
    ranked = sorted(view.results, key=lambda result: result.pipeline != wanted)
    usable = [r for r in ranked if not r.pipeline.startswith("build_") and (pipeline is None or r.pipeline == pipeline)]
    if not usable or detector not in archive.camera.by_id:
        raise NotFoundError("result of this detector", detector)
    return usable[0]


def _draw(developed: Developed, place: Detector, scale: int, column: int, row: int, stretch: Stretch) -> bytes:
    """Return one tile; only the pixels it shows are read."""
    picture = upright(developed.pixels, place)
    span = TILE_PX * scale
    part = picture[row * span : (row + 1) * span, column * span : (column + 1) * span]
    if part.size == 0:
        raise NotFoundError("tile", f"{scale}/{column}_{row}")
    part = np.ascontiguousarray(part)
    if scale > 1:
        size = (max(part.shape[1] // scale, 1), max(part.shape[0] // scale, 1))
        part = np.asarray(cv2.resize(part, size, interpolation=cv2.INTER_AREA), np.float32)
    return to_jpeg(stretch.levels(part), quality=QUALITY + 6)
