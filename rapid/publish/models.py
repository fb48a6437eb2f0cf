"""What is published where: channels and columns of each camera, as data."""

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

INDICATORS = frozenset(
    {"bad", "warning", "ok", "measured", "white_color", "rainbow_color", "r_stripes", "b_stripes"}
    | {f"{band}_color" for band in "ugrizy"}
)
"""Classes of a cell that RubinTV has a colour for (``_filter_colours.scss``, ``_colours.sass``)."""


class _Data(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Band(_Data):
    """When a number is fine, and when it is not: the colour of its cell."""

    ok_below: float | None = None
    ok_above: float | None = None
    bad_below: float | None = None
    bad_above: float | None = None
    colour_ok: bool = Field(default=False, description="Colour good cells too; else only what needs a look.")


class ColumnSpec(_Data):
    """One column of RubinTV's table.

    ``sources`` are tried in order: ``info.NAME`` (the exposure's facts), ``metrics.NAME`` (focal-plane numbers),
    ``summary.NAME`` or ``control.NAME``; the first that has a value is shown.
    """

    name: str = Field(min_length=1, max_length=60)
    sources: tuple[str, ...] = ()
    kind: Literal["value", "filter", "detectors", "missing", "all_metrics", "image_type", "time", "state"] = "value"
    scale: float = Field(default=1.0, description="The number is shown times this.")
    digits: int = Field(default=6, ge=1, description="Significant digits.")
    band: Band | None = None
    colours: dict[str, str] = Field(default_factory=dict, description="Colour of the cell by its text.")
    image_types: tuple[str, ...] = Field(default=(), description="Only for these; for all if empty.")

    @model_validator(mode="after")
    def _is_plain(self) -> "ColumnSpec":
        if self.name[0] in "_@":
            raise ValueError("RubinTV reads _ and @ at a column's beginning as colour and channel text")
        if self.kind == "value" and not self.sources:
            raise ValueError(f"column {self.name!r} has no sources")
        for source in self.sources:
            if source.partition(".")[0] not in {"info", "metrics", "summary", "control"} or "." not in source:
                raise ValueError(f"{source!r} is not info.NAME, metrics.NAME, summary.NAME or control.NAME")
        return self


class ChannelSpec(_Data):
    """One channel: which product of a summary it shows."""

    products: tuple[str, ...] = Field(
        default=(), description="Product kinds, the first that a summary has is shown; made by the role if empty."
    )
    image_types: tuple[str, ...] | None = Field(
        default=None,
        description="For which it is expected, so that an empty cell says what is the matter; all if null.",
    )
    pipelines: tuple[str, ...] = Field(default=(), description="Only of these pipelines; of any if empty.")
    make: Literal["witness", "timeline", "movie", ""] = Field(default="", description="What the role itself makes.")


class CameraSpec(_Data):
    """One camera as RubinTV knows it."""

    name: str = Field(pattern=r"^\w+$")
    channels: dict[str, ChannelSpec] = Field(default_factory=dict)
    columns: tuple[str, ...] = Field(default=(), description="Names of groups of columns, in order.")
    rows: Literal["all", "with_products"] = Field(
        default="all", description="Which exposures have a row: all, or those with a product of one of the channels."
    )
    night_report: bool = False


class Catalogue(_Data):
    """All of it, for one of our cameras."""

    cameras: tuple[CameraSpec, ...]
    columns: dict[str, tuple[ColumnSpec, ...]]
    consdb: str = Field(default="", description="Name of the instrument in ConsDB's paths; not written there if empty.")

    @model_validator(mode="after")
    def _has_columns(self) -> "Catalogue":
        for camera in self.cameras:
            unknown = set(camera.columns) - self.columns.keys()
            if unknown:
                raise ValueError(f"camera {camera.name}: no group of columns named {min(unknown)!r}")
        return self

    def columns_of(self, camera: CameraSpec) -> list[ColumnSpec]:
        """Return the columns of a camera, in order."""
        return [column for group in camera.columns for column in self.columns[group]]
