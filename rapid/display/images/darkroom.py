"""Keep the calibrated images that viewers have zoomed into, and have others made.

Images lie as files in a folder of this process; the oldest go when there are too many. One child process makes them, one
after the other; it is ended when it takes too long, and started again for the next.
"""

import asyncio
import hashlib
import tempfile
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import structlog
from numpy.typing import NDArray
from pydantic import ValidationError

from rapid.display.images.models import DevelopAnswer, DevelopTask
from rapid.errors import NotFoundError, RapidError, StoreError
from rapid.gather.stretch import Stretch, choose_stretch
from rapid.line_process import LineProcess, NoAnswerError
from rapid.results.models import DetectorResult

log = structlog.get_logger()

MAX_ASKED = 24
"""Images that may be asked for at a time, over all viewers; who asks for more is told to wait."""


class DevelopError(RapidError):
    """A calibrated image could not be made."""

    code = "develop_failed"


@dataclass(frozen=True)
class Developed:
    """A calibrated image.

    Attributes
    ----------
    pixels : ndarray of shape (ny, nx), float32
        In the detector's own frame, memory-mapped. Not to be modified.
    """

    image_id: str
    pixels: NDArray[np.float32]
    stretch: Stretch
    median: float
    noise: float
    answer: DevelopAnswer


class Darkroom:
    """Gives calibrated images.

    Parameters
    ----------
    results_url, calibs_path
        Where calibs are.
    n_kept
        Images that are kept: 64 MB of disk each for an LSSTCam detector.
    task_s
        An image that takes longer is given up.
    """

    def __init__(self, *, results_url: str, calibs_path: Path, n_kept: int = 32, task_s: float = 60.0) -> None:
        self._stores = {"results_url": results_url, "calibs_path": calibs_path}
        self._n_kept = n_kept
        self._folder: tempfile.TemporaryDirectory[str] | None = None
        self._kept: OrderedDict[str, Developed] = OrderedDict()
        self._asked: dict[str, asyncio.Task[Developed]] = {}
        self._turn = asyncio.Lock()
        self._deriving = asyncio.Lock()
        self._process = LineProcess("rapid.display.images.develop", answer_s=task_s)

    def known(self, image_id: str) -> Developed:
        """Return an image that has been made; raises `NotFoundError` if it is not kept (any more)."""
        found = self._kept.get(image_id)
        if found is None:
            raise NotFoundError("image", image_id)
        self._kept.move_to_end(image_id)
        return found

    async def image_of(self, result: DetectorResult) -> Developed:
        """Return the calibrated image that a result was measured on, made anew from its raw.

        Raises
        ------
        DevelopError
            Raised if it cannot be made: the raw is gone, say.
        StoreError
            Raised if too many are being made.
        """
        image_id = image_id_of(result)
        if image_id in self._kept:
            return self.known(image_id)
        task = self._asked.get(image_id)
        if task is None:
            if len(self._asked) >= MAX_ASKED:
                raise StoreError(f"{MAX_ASKED} images are being made; ask again")
            task = asyncio.create_task(self._make(image_id, result))
            self._asked[image_id] = task
            task.add_done_callback(lambda _: self._asked.pop(image_id, None))
            # Its error is for whoever waits; a viewer that has left must not make it an unheard one.
            task.add_done_callback(lambda done: done.cancelled() or done.exception())
        return await asyncio.shield(task)

    async def derived(
        self, image_id: str, base: Developed, make: Callable[[NDArray[np.float32]], NDArray[np.float32]], *, unit: str
    ) -> Developed:
        """Return an image that is made of another one, and keep it as well.

        Parameters
        ----------
        make
            Called in a thread with the pixels of ``base``.
        """
        if image_id in self._kept:
            return self.known(image_id)
        if self._folder is None:
            raise NotFoundError("image", base.image_id)
        target = Path(self._folder.name) / f"{image_id}.npy"
        answer = base.answer.model_copy(update={"unit": unit})
        # One at a time: each has whole planes in hand, and two that ask for the same one get one.
        async with self._deriving:
            if image_id not in self._kept:
                made = await asyncio.to_thread(_derive, image_id, base, make, target, answer)
                self._keep(made)
        return self.known(image_id)

    async def close(self) -> None:
        """End the child and remove the images."""
        for task in list(self._asked.values()):
            task.cancel()
        await asyncio.gather(*self._asked.values(), return_exceptions=True)
        await self._process.end()
        self._kept.clear()
        if self._folder is not None:
            await asyncio.to_thread(self._folder.cleanup)

    # -- inside ------------------------------------------------------------------------------------

    async def _make(self, image_id: str, result: DetectorResult) -> Developed:
        if self._folder is None:
            # Not in a thread: two that ask at a time would make two, and the images of one would be lost with it.
            self._folder = tempfile.TemporaryDirectory(prefix="rapid-darkroom-")
        target = Path(self._folder.name) / f"{image_id}.npy"
        task = DevelopTask(
            **self._stores,
            raw_uri=result.provenance.raw,
            raw_sha256=result.provenance.raw_sha256,
            camera=result.camera,
            pipeline=result.pipeline,
            target=target,
        )
        async with self._turn:
            answer = await self._ask(task)
        if answer.error is not None:
            raise DevelopError(f"cannot make the image: {answer.error.get('message', 'no reason given')}")
        answer.notes += differences(result, answer)
        made = await asyncio.to_thread(_open, image_id, target, answer, is_sky=not _is_calibration(result))
        self._keep(made)
        return made

    def _keep(self, made: Developed) -> None:
        assert self._folder is not None  # noqa: S101 - it was made there
        self._kept[made.image_id] = made
        while len(self._kept) > self._n_kept:
            oldest, _ = self._kept.popitem(last=False)
            # Whoever still reads it has it mapped: the name goes at once, the pages when the last reader has done.
            (Path(self._folder.name) / f"{oldest}.npy").unlink(missing_ok=True)

    async def _ask(self, task: DevelopTask) -> DevelopAnswer:
        try:
            return DevelopAnswer.model_validate_json(await self._process.ask(task.model_dump_json()))
        except (NoAnswerError, ValidationError) as error:
            log.error("darkroom did not answer", error=str(error))
            await self._process.end()
            return DevelopAnswer(error={"message": f"{error}; see the display's log"})


def image_id_of(result: DetectorResult) -> str:
    """Return the identity of the image of a result: another raw, pipeline or software makes another image."""
    made_of = (result.provenance.raw_sha256, result.provenance.config_hash, result.run, str(result.finished_at))
    return hashlib.sha256(
        "\n".join((str(result.exposure), result.pipeline, str(result.detector), *made_of)).encode()
    ).hexdigest()[:20]


def differences(result: DetectorResult, answer: DevelopAnswer) -> list[str]:
    """Return how an image made now differs from what a result was measured on."""
    notes = []
    for kind in sorted(result.provenance.calibs.keys() | answer.calibs.keys()):
        then, now = result.provenance.calibs.get(kind, "none"), answer.calibs.get(kind, "none")
        if then != now:
            notes.append(f"{kind}: measured with {then}, shown with {now}")
    measured = [name for name in result.provenance.applied if name in answer.applied]
    if measured != answer.applied or len(measured) < len(result.provenance.applied):
        missing = sorted(set(result.provenance.applied) ^ set(answer.applied))
        if missing:
            notes.append(f"corrections differ: {', '.join(missing)}")
    return notes


def _derive(
    image_id: str,
    base: Developed,
    make: Callable[[NDArray[np.float32]], NDArray[np.float32]],
    target: Path,
    answer: DevelopAnswer,
) -> Developed:
    part = target.with_suffix(".part")
    with part.open("wb") as file:
        np.save(file, make(base.pixels))
    part.replace(target)
    return _open(image_id, target, answer, is_sky=True)


def _is_calibration(result: DetectorResult) -> bool:
    return result.image_type in {"bias", "dark", "flat"}


def _open(image_id: str, path: Path, answer: DevelopAnswer, *, is_sky: bool) -> Developed:
    pixels: NDArray[Any] = np.load(path, mmap_mode="r")
    stretch = choose_stretch([pixels], sky=is_sky)
    sample = np.asarray(pixels[:: max(pixels.shape[0] // 512, 1), :: max(pixels.shape[1] // 512, 1)])
    good = sample[np.isfinite(sample)]
    median = float(np.median(good)) if good.size else 0.0
    noise = 1.4826 * float(np.median(np.abs(good - median))) if good.size else 0.0
    return Developed(image_id=image_id, pixels=pixels, stretch=stretch, median=median, noise=noise, answer=answer)
