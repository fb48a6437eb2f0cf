"""`rapid control`: see and change what is done with the next exposure."""

import contextlib
import getpass
import os
import socket
import sys
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any

import typer

from rapid.cli.output import print_json
from rapid.cli.roles import CameraName, Redis
from rapid.errors import ConfigurationError, RefusedError

CLI_OUTAGE_S = 3.0
"""A person at a terminal wants to be told, not to wait."""

MAX_FILE_BYTES = 1024 * 1024
EXIT_REFUSED = 3
"""Valid, but not now: somebody else was first, or a pair of exposures is under way."""

TEXT_FIELDS = (
    "pattern",
    "visit_mode",
    "worker_mode",
    "wavefront_pipeline",
    "guaranteed_header",
    "pipelines.",
    "patterns.",
)
"""Their values are taken as they stand: `pattern=94` is an expression, not a number."""

AsJson = Annotated[bool, typer.Option("--json", help="Print as JSON.")]

control_app = typer.Typer(
    help="See and change what is done with the next exposure: pattern, modes, pipelines, timeouts, load shedding.",
    no_args_is_help=True,
)


@contextlib.contextmanager
def _store(camera: str | None, redis: str | None) -> Iterator[Any]:
    from rapid.control.store import ControlStore
    from rapid.dispatch.board import Board
    from rapid.pipeline.store import default_book
    from rapid.wiring.camera import adopt_camera
    from rapid.wiring.settings import make_settings

    settings = make_settings(camera=camera, redis_url=redis)
    known = adopt_camera(settings.camera)
    with Board(settings.redis_url, known.name, outage_s=CLI_OUTAGE_S) as board:
        yield ControlStore(board.connection, known, default_book())


def who() -> str:
    """Return who sits at this terminal: login name and host."""
    try:
        name = getpass.getuser()
    except (KeyError, OSError):  # a container without a user database
        name = f"uid {os.getuid()}"
    return f"{name}@{socket.gethostname()}"


def flat(document: Mapping[str, Any], path: str = "") -> dict[str, Any]:
    """Return a document's values by dotted path; an empty table is a value."""
    rows: dict[str, Any] = {}
    for name, value in document.items():
        if isinstance(value, Mapping) and value:
            rows |= flat(value, f"{path}{name}.")
        else:
            rows[f"{path}{name}"] = value
    return rows


def _shown(value: Any) -> str:
    if value is None:
        return "-"
    if isinstance(value, list | tuple):
        return ", ".join(map(str, value)) or "(none)"
    return "(none)" if value == {} else str(value)


def _moment(at_ms: int) -> str:
    return time.strftime("%Y-%m-%d %H:%M:%S", time.gmtime(at_ms / 1000))


def _print_state(document: Any, *, as_json: bool) -> None:
    if as_json:
        print_json(document.model_dump(mode="json"))
        return
    if document.version:
        why = f": {document.reason}" if document.reason else ""
        print(f"version {document.version}, by {document.changed_by} at {_moment(document.changed_ms)} UTC{why}")
    else:
        print("version 0: the defaults")
    rows = flat(document.state.model_dump(mode="json"))
    width = max(map(len, rows))
    for path, value in rows.items():
        print(f"  {path:{width}}  {_shown(value)}")


def parse_assignments(assignments: list[str]) -> tuple[dict[str, Any], dict[str, list[int]], dict[str, list[int]]]:
    """Return values by dotted path, and exposure ids to add and to take away.

    Raises
    ------
    ConfigurationError
        Raised for what is no assignment.
    """
    import yaml

    values: dict[str, Any] = {}
    added: dict[str, list[int]] = {}
    removed: dict[str, list[int]] = {}
    for text in assignments:
        name, sign, value = text.partition("=")
        path = name.strip().rstrip("+-").strip()
        if not sign or not path:
            raise ConfigurationError(text[:64], "is no assignment: write FIELD=VALUE, as pattern=ccd_checkerboard")
        if name.strip().endswith(("+", "-")):
            table = added if name.strip().endswith("+") else removed
            table[path] = _ids(path, value)
        elif path in values:
            raise ConfigurationError(path, "is given twice")
        elif path.startswith(TEXT_FIELDS):
            values[path] = None if value.strip() in {"", "null"} else value.strip()
        else:
            try:
                values[path] = yaml.safe_load(value)
            except yaml.YAMLError as error:
                raise ConfigurationError(path, f"{value[:64]!r} is no value") from error
    return values, added, removed


def _ids(path: str, text: str) -> list[int]:
    if path != "guaranteed":
        raise ConfigurationError(path, "only guaranteed takes += and -=")
    try:
        return [int(part) for part in text.split(",") if part.strip()]
    except ValueError as error:
        raise ConfigurationError(path, f"{text[:64]!r} is no list of exposure ids") from error


def _read_file(path: Path) -> dict[str, Any]:
    import yaml

    try:
        with path.open("rb") as file:
            content = file.read(MAX_FILE_BYTES + 1)
        if len(content) > MAX_FILE_BYTES:
            raise ConfigurationError(str(path), f"is longer than {MAX_FILE_BYTES} bytes")
        document = yaml.safe_load(content.decode())
    except OSError as error:
        raise ConfigurationError(str(path), f"cannot be read: {error.strerror}") from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ConfigurationError(str(path), f"is not YAML: {error}") from error
    if not isinstance(document, dict):
        raise ConfigurationError(str(path), "must hold fields and values")
    # What `rapid control get --json` prints can be given back.
    state = document.get("state")
    return dict(state) if isinstance(state, dict) and "version" in document else document


@control_app.command("get")
def get(
    field: Annotated[str | None, typer.Argument(help="Only this field, dotted: timeouts.gather_s.")] = None,
    camera: CameraName = None,
    redis: Redis = None,
    as_json: AsJson = False,
) -> None:
    """Show the control state in force. Example: rapid control get pattern"""
    with _store(camera, redis) as store:
        document = store.read()
    if field is None:
        _print_state(document, as_json=as_json)
        return
    value: Any = document.state.model_dump(mode="json")
    for part in field.split("."):
        if not isinstance(value, dict) or part not in value:
            raise ConfigurationError(field, "there is no such field")
        value = value[part]
    print_json(value) if as_json or isinstance(value, dict) else print(_shown(value))


@control_app.command("set")
def set_(
    assignments: Annotated[
        list[str] | None,
        typer.Argument(help="FIELD=VALUE, dotted; an empty VALUE is the default. guaranteed+=ID adds an exposure."),
    ] = None,
    reason: Annotated[str, typer.Option("--reason", "-m", help="Why, for the audit log.")] = "",
    file: Annotated[Path | None, typer.Option("--file", "-f", help="YAML or JSON with fields to change.")] = None,
    if_version: Annotated[
        int | None, typer.Option(min=0, help="Refuse if the state is at another version by now.")
    ] = None,
    camera: CameraName = None,
    redis: Redis = None,
    as_json: AsJson = False,
) -> None:
    """Change the control state, from the next exposure on; prints it as it now is.

    Example: rapid control set pattern=ccd_checkerboard visit_mode=alternating timeouts.gather_s=8 --reason "clouds"

    Exit status 1: not valid, nothing has changed. 3: valid, but not now.
    """
    from rapid.control.rules import as_patch, merge

    values, added, removed = parse_assignments(assignments or [])
    if file is None and not (values or added or removed):
        raise typer.BadParameter("nothing to change: give FIELD=VALUE or --file")
    patch = _read_file(file) if file is not None else {}
    # Not a merge: null has to stay in the patch.
    for name, value in as_patch(values).items():
        is_table = isinstance(value, dict) and isinstance(patch.get(name), dict)
        patch[name] = merge(patch[name], value) | value if is_table else value
    with _store(camera, redis) as store:
        try:
            document = _change(store, patch, added, removed, reason=reason, if_version=if_version)
        except RefusedError as error:
            print(f"rapid: {error.message}", file=sys.stderr)
            raise typer.Exit(EXIT_REFUSED) from error
    _print_state(document, as_json=as_json)


def _change(
    store: Any,
    patch: dict[str, Any],
    added: dict[str, list[int]],
    removed: dict[str, list[int]],
    *,
    reason: str,
    if_version: int | None,
) -> Any:
    from rapid.control.store import VersionChangedError

    if not (added or removed):
        return store.change(patch, by=who(), door="cli", reason=reason, expected_version=if_version)
    for attempt in range(10):
        before = store.read()
        ids = (before.state.guaranteed | set(added.get("guaranteed", ()))) - set(removed.get("guaranteed", ()))
        version = before.version if if_version is None else if_version
        try:
            return store.change(
                {**patch, "guaranteed": sorted(ids)}, by=who(), door="cli", reason=reason, expected_version=version
            )
        except VersionChangedError:
            if if_version is not None or attempt == 9:
                raise
    return None


@control_app.command("history")
def history(
    limit: Annotated[int, typer.Option(min=1, max=500, help="How many, newest first.")] = 20,
    camera: CameraName = None,
    redis: Redis = None,
    as_json: AsJson = False,
) -> None:
    """Show who changed what, newest first. Example: rapid control history --limit 5"""
    with _store(camera, redis) as store:
        changes = store.history(limit)
    if as_json:
        print_json([change.model_dump(mode="json") for change in changes])
        return
    for change in changes:
        why = f"  ({change.reason})" if change.reason else ""
        print(f"{change.version:>5}  {_moment(change.changed_ms)}  {change.changed_by} by {change.door}{why}")
        for path, new in change.after.items():
            print(f"       {path}: {_shown(change.before.get(path))} -> {_shown(new)}")
    if not changes:
        print("never changed")


def register(app: typer.Typer) -> None:
    """Add the commands."""
    app.add_typer(control_app, name="control")
