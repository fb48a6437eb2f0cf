"""Build what adds telemetry to summaries, as the publish role runs it."""

import asyncio

from pydantic import ValidationError

from rapid.dispatch.board import AsyncBoard
from rapid.dispatch.models import BatchKey, EventKind
from rapid.errors import ConfigurationError
from rapid.products.store import open_products
from rapid.products.summary_document import put_summary
from rapid.publish.mount import MountMotionSink
from rapid.results.models import ExposureSummary
from rapid.results.store import ResultsStore
from rapid.telemetry.models import TelemetryConfig
from rapid.wiring.settings import RoleSettings


def make_mount_motion(settings: RoleSettings, board: AsyncBoard, results: ResultsStore) -> tuple[MountMotionSink, ...]:
    """Return what measures the mount's motion, if telemetry is configured.

    Raises
    ------
    ConfigurationError
        Raised, naming the field, for a source that is not described well.
    """
    if not settings.telemetry:
        return ()
    try:
        config = TelemetryConfig.model_validate(settings.telemetry)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        path = ".".join(str(part) for part in ("telemetry", *first["loc"]))
        raise ConfigurationError(path, first["msg"].removeprefix("Value error, ")) from error

    products = open_products(settings.products)

    async def tell(summary: ExposureSummary) -> None:
        await asyncio.to_thread(put_summary, summary, products, as_stored=results.same_summary)
        key = BatchKey(run=summary.run, exposure_id=summary.exposure, pipeline=summary.pipeline)
        told = {"version": summary.version, "products": {}}
        await board.publish(EventKind.PRODUCTS_ADDED, batch=key, data=told)

    return (MountMotionSink(config, results, tell),)
