"""What RubinTV is told of an exposure: the row of its table, and which products its channels show.

Pure. RubinTV puts whatever stands in ``metadata.json`` on the page, and a value it cannot draw takes the whole page
down: so a row holds flat scalars and flat fold-outs only, null for what is no number, and nothing else can get in.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from rapid.dispatch.models import BatchState
from rapid.publish.models import INDICATORS, CameraSpec, Catalogue, ChannelSpec, ColumnSpec
from rapid.results.models import DetectorState, ExposureSummary

FlatValue = float | int | str | bool | None
Cell = FlatValue | dict[str, FlatValue]
Row = dict[str, Cell]

MAX_TEXT = 400
"""Letters of a text in a cell; a longer one (a traceback, say) would push all others off the screen."""

MAX_FOLD_OUT = 400
"""Entries of a fold-out: all detectors of a camera, and then some."""

WAITING, FAILED, PARTIAL = "…", "✗", "–"
"""What an empty channel's cell says: comes still; failed; there is none, though it could be. Letters that every font has:
a control room's browser without the one for emoji shows a box."""

_FAILED_STATES = frozenset({DetectorState.FAILED, DetectorState.QUARANTINED})

_STRIPES = {"flat": "r_stripes", "dark": "b_stripes"}


@dataclass(frozen=True)
class Posted:
    """An exposure the board has, of which no summary is there yet."""

    exposure: int
    seq_num: int
    pipeline: str
    image_type: str
    info: Mapping[str, Any] = field(default_factory=dict)
    n_expected: int = 0


def flat(value: object, *, digits: int | None = None) -> FlatValue:
    """Return a value as RubinTV can show it: a scalar, None for what is no number, text for anything else.

    Examples
    --------
    >>> flat(float("nan")), flat(0.123456789, digits=3), flat([1, 2]), flat("x" * 500)[-1]
    (None, 0.123, '[1, 2]', '…')
    >>> flat(1.7976931348623157e308, digits=3) is None
    True
    """
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, int):
        return value
    if isinstance(value, float):
        shown = float(f"{value:.{digits}g}") if digits is not None else value
        return shown if math.isfinite(shown) else None  # rounding up the largest float there is leaves none
    text = str(getattr(value, "value", value))
    # A lone surrogate cannot be written as UTF-8.
    text = text.encode("utf-8", "replace").decode("utf-8")
    return text if len(text) <= MAX_TEXT else f"{text[: MAX_TEXT - 1]}…"


def fold_out(shown: str, entries: Mapping[str, object]) -> dict[str, FlatValue]:
    """Return a cell that opens: its face, and a table of flat values.

    RubinTV draws booleans of a fold-out as nothing, so that they are written out.
    """
    cell: dict[str, FlatValue] = {"DISPLAY_VALUE": shown}
    for name, value in list(entries.items())[:MAX_FOLD_OUT]:
        found = flat(value, digits=6)
        cell[str(flat(name)) or "-"] = str(found) if isinstance(found, bool) else found
    if len(entries) > MAX_FOLD_OUT:
        cell["…"] = f"{len(entries) - MAX_FOLD_OUT} more"
    return cell


def row_of(catalogue: Catalogue, camera: CameraSpec, found: ExposureSummary | Posted) -> Row:
    """Return what a camera's table says of one pipeline of an exposure.

    Rows of several pipelines are put together by `merge_rows`.
    """
    row: Row = {}
    for column in catalogue.columns_of(camera):
        if column.image_types and found.image_type not in column.image_types:
            continue
        value, indicator = _cell(column, found)
        if value is None and column.kind != "detectors":
            continue
        row[column.name] = value
        if indicator is not None and indicator in INDICATORS:
            row[f"_{column.name}"] = indicator
    for channel, spec in camera.channels.items():
        if isinstance(found, ExposureSummary) and product_of(spec, found) is not None:
            continue
        text = _channel_text(spec, found)
        if text is not None:
            row[f"@{channel}"] = text
    return row


def merge_rows(rows: Mapping[str, Row]) -> Row:
    """Return one row of the rows of several pipelines.

    The pipelines in order of their names decide, but those that were run for the sake of others (``build_``) last;
    fold-outs of the same column are joined. A colour always comes with the value it belongs to.
    """
    merged: Row = {}
    for pipeline in sorted(rows, key=lambda name: (name.startswith("build_"), name)):
        for name, value in rows[pipeline].items():
            if name[0] == "_":
                continue
            have = merged.get(name)
            if isinstance(have, dict) and isinstance(value, dict):
                merged[name] = _joined(have, value, pipeline)
            elif have is None:
                merged[name] = value
                indicator = rows[pipeline].get(f"_{name}")
                if indicator is not None:
                    merged[f"_{name}"] = indicator
    return merged


def _joined(have: dict[str, FlatValue], more: dict[str, FlatValue], pipeline: str) -> dict[str, FlatValue]:
    joined = dict(have)
    for name, value in more.items():
        if name == "DISPLAY_VALUE":
            continue
        joined[name if name not in joined else f"{name} ({pipeline})"] = value
    return dict(list(joined.items())[: MAX_FOLD_OUT + 2])


def product_of(spec: ChannelSpec, summary: ExposureSummary) -> tuple[str, str] | None:
    """Return kind and key of the product a channel shows of a summary, or None if it has none of them."""
    if spec.pipelines and summary.pipeline not in spec.pipelines:
        return None
    for kind in spec.products:
        key = summary.products.get(kind)
        if key is not None and extension_of(key) is not None:
            return kind, key
    return None


def posted_of(state: BatchState) -> Posted:
    """Return what is known of an exposure before it has a summary."""
    return Posted(
        exposure=state.key.exposure_id,
        seq_num=int(state.info.get("seq_num") or state.key.exposure_id % 100_000),
        pipeline=state.key.pipeline,
        image_type=state.image_type,
        info=state.info,
        n_expected=len(state.expected),
    )


def extension_of(key: str) -> str | None:
    """Return the ending RubinTV knows of a product's key, or None if it would not show it.

    Examples
    --------
    >>> extension_of("LSSTCam/20261120/000001/prompt/quicklook/mosaic.v2.jpg")
    'jpg'
    """
    ending = key.rpartition(".")[2].lower()
    return ending if ending in {"jpg", "jpeg", "png", "mp4"} else None


def _channel_text(spec: ChannelSpec, found: ExposureSummary | Posted) -> str | None:
    """Return what an empty channel's cell says; None where nothing is expected."""
    if spec.make == "movie" or (spec.pipelines and found.pipeline not in spec.pipelines):
        return None
    if spec.image_types is not None and found.image_type not in spec.image_types:
        return None
    if found.pipeline.startswith("build_"):
        return None
    if isinstance(found, Posted):
        return WAITING
    if spec.make:
        return None if found.n_finished else FAILED
    if found.n_finished == 0:
        return FAILED
    return WAITING if not found.is_complete else PARTIAL


def _cell(column: ColumnSpec, found: ExposureSummary | Posted) -> tuple[Cell, str | None]:
    match column.kind:
        case "image_type":
            return found.image_type, _STRIPES.get(found.image_type)
        case "filter":
            return _filter(found)
        case "time":
            return _first(column, found), None
        case "detectors":
            return _detectors(found)
        case "state":
            return _state(found)
        case "missing":
            return _missing(found), None
        case "all_metrics":
            if isinstance(found, Posted) or not found.metrics:
                return None, None
            # The page is sent the whole night anew for every exposure: scatters would double it.
            kept = {name: value for name, value in sorted(found.metrics.items()) if not name.endswith("_scatter")}
            return fold_out(str(len(kept)), kept), None  # its button has room for three letters
        case _:
            value = _first(column, found)
            if isinstance(value, int | float) and not isinstance(value, bool) and column.scale != 1.0:
                value = flat(value * column.scale, digits=column.digits)
            return value, column.colours.get(value) if isinstance(value, str) else _indicator(column, value)


def _first(column: ColumnSpec, found: ExposureSummary | Posted) -> FlatValue:
    for source in column.sources:
        place, _, name = source.partition(".")
        if place == "summary":
            value = getattr(found, name, None)
        elif place == "info":
            value = found.info.get(name)
        else:
            value = getattr(found, place, {}).get(name)
        shown = flat(value, digits=column.digits)
        if shown is not None:
            return shown
    return None


def _indicator(column: ColumnSpec, value: FlatValue) -> str | None:
    """Return the colour of a number's cell."""
    band = column.band
    if band is None or isinstance(value, bool) or not isinstance(value, int | float):
        return None
    if (band.bad_below is not None and value < band.bad_below) or (
        band.bad_above is not None and value > band.bad_above
    ):
        return "bad"
    if (band.ok_above is not None and value < band.ok_above) or (band.ok_below is not None and value > band.ok_below):
        return "warning"
    return "ok" if band.colour_ok else None


def _filter(found: ExposureSummary | Posted) -> tuple[Cell, str | None]:
    name = flat(found.info.get("physical_filter"))
    band = found.info.get("band")
    return name if name is not None else flat(band), f"{band}_color" if band else None


def _detectors(found: ExposureSummary | Posted) -> tuple[Cell, str | None]:
    if isinstance(found, Posted):
        return f"0/{found.n_expected}", None
    if found.n_finished >= found.n_expected:
        indicator = "ok" if found.is_complete else "warning"
    else:
        indicator = "bad" if found.n_finished == 0 else "warning"
    return f"{found.n_finished}/{found.n_expected}", indicator


def _state(found: ExposureSummary | Posted) -> tuple[Cell, str | None]:
    if isinstance(found, Posted):
        return "processing", "measured"
    if found.is_complete:
        return "complete", None
    if found.n_finished == 0:
        return "failed", "bad"
    return "partial", "warning"


def _missing(found: ExposureSummary | Posted) -> Cell:
    """Return a fold-out of the detectors that did not finish, with the reason (I10)."""
    if isinstance(found, Posted):
        return None
    missing = {
        f"{number:03d}": f"{status.state.value}: {status.reason}" if status.reason else status.state.value
        for number, status in sorted(found.detectors.items())
        if status.state not in {DetectorState.FINISHED, DetectorState.EXCLUDED}
    }
    if not missing:
        return None
    failed = sum(found.detectors[int(number)].state in _FAILED_STATES for number in missing)
    return fold_out(f"{len(missing)}{'✗' if failed else ''}", missing)
