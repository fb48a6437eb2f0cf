"""What was drawn on the focal plane, as an expression that can be read, saved and changed by hand."""

from typing import Annotated, Any

from fastapi import APIRouter, Query
from pydantic import BaseModel, Field

from rapid.access import BadRequestError, ErrorAnswer
from rapid.camera.models import Camera
from rapid.patterns import PatternError, pattern_of

ERRORS: dict[int | str, dict[str, Any]] = {
    422: {"model": ErrorAnswer, "description": "The camera has no such detector; `field` says so."},
}


class DrawnPattern(BaseModel):
    """A set of detectors in few words."""

    expression: str = Field(description="Whole rafts by name, the others by number.")
    detectors: list[int]


def drawing_routes(camera: Camera) -> APIRouter:
    """Return the route that puts a drawn pattern into words."""
    router = APIRouter(tags=["control"], responses=ERRORS)

    @router.get("/api/patterns/drawn", summary="A set of detectors as a pattern expression")
    async def drawn(
        detectors: Annotated[
            str, Query(max_length=4096, pattern=r"^[0-9]{1,6}(,[0-9]{1,6})*$", description="Numbers, comma separated.")
        ],
    ) -> DrawnPattern:
        """Return the shortest expression for these detectors."""
        ids = sorted({int(number) for number in detectors.split(",")})
        try:
            return DrawnPattern(expression=str(pattern_of(ids, camera)), detectors=ids)
        except PatternError as error:
            raise BadRequestError("detectors", error.reason) from error

    return router
