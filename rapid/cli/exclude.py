"""`rapid exclude`: switch detectors and amps off and on, and see what is off and why."""

import getpass
import os
import socket
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from rapid.cli.output import print_json
from rapid.cli.roles import CameraName, Data, Redis
from rapid.errors import ConfigurationError

if TYPE_CHECKING:
    from rapid.exclusions.models import Exclusion

CLI_OUTAGE_S = 3.0
"""A person at a terminal wants to be told, not to wait."""

exclude_app = typer.Typer(
    help="Switch detectors and amps off and on; they are shown as excluded, never as missing.", no_args_is_help=True
)


class Desk:
    """What the commands work with: the store, and the board to tell displays."""

    def __init__(self, camera: str | None, redis: str | None, data: Any) -> None:
        from rapid.dispatch.board import Board
        from rapid.exclusions.store import ExclusionStore
        from rapid.results.store import open_results
        from rapid.wiring.camera import adopt_camera
        from rapid.wiring.settings import make_settings

        settings = make_settings(camera=camera, redis_url=redis, data=data)
        self.camera = adopt_camera(settings.camera)
        if "://" not in settings.results and not Path(settings.results).exists():
            # A new, empty store would take the exclusion, and no head would ever read it.
            raise ConfigurationError(
                "data", f"there is no results store at {settings.results}; give --data, or RAPID_RESULTS_URL"
            )
        self.store = ExclusionStore(open_results(settings.results).engine)
        self.board = Board(settings.redis_url, self.camera.name, outage_s=CLI_OUTAGE_S)
        self.now = datetime.now(UTC)

    def next_exposure(self) -> datetime:
        """Return the time from which a change made now holds; now, if the board cannot tell what came last."""
        from rapid.errors import StoreError
        from rapid.exclusions.decide import newest_begin, next_exposure_from

        try:
            keys = self.board.recent(1)
            state = self.board.state(keys[0]) if keys else None
        except StoreError:
            return self.now
        return next_exposure_from(newest_begin(state.info if state else {}), now=self.now)

    def tell(self, exclusions: "list[Exclusion]", what: str) -> None:
        """Tell displays of detectors and amps."""
        self.announce(what, [one.name for one in exclusions])

    def announce(self, what: str, names: list[str]) -> None:
        """Tell displays; that the board is away does not undo what was stored."""
        from rapid.dispatch.models import EventKind
        from rapid.errors import StoreError

        try:
            self.board.publish(EventKind.EXCLUSION_CHANGED, data={"what": what, "names": names[:100]})
        except StoreError as error:
            print(f"rapid: stored, but displays could not be told: {error.message}", file=sys.stderr)


def open_desk(camera: str | None, redis: str | None, data: Any) -> Desk:
    """Return what commands that exclude things work with."""
    return Desk(camera, redis, data)


def whoami() -> str:
    """Return who is at the terminal, for the history."""
    try:
        name = getpass.getuser()
    except (OSError, KeyError):  # a container's user that has no name
        name = f"uid {os.getuid()}"
    return f"{name}@{socket.gethostname().split('.')[0]}"


def _when(moment: datetime | None) -> str:
    return "-" if moment is None else f"{moment:%Y-%m-%d %H:%M}"


def _table(exclusions: "list[Exclusion]", *, now: datetime, with_history: bool) -> str:
    lines = [f"{'id':>5}  {'what':14}{'from (UTC)':18}{'to (UTC)':18}{'state':9}{'by':22}  reason"]
    for one in exclusions:
        state = (
            "undone" if one.is_undone else "off" if one.covers(now) else "planned" if one.valid_from > now else "ended"
        )
        lines.append(
            f"{one.id:>5}  {one.name:14}{_when(one.valid_from):18}{_when(one.valid_to):18}{state:9}"
            f"{one.author:22}  {one.reason}"
        )
        if with_history and one.ended_by:
            why = f": {one.end_reason}" if one.end_reason else ""
            lines.append(
                f"{'':7}{'undone' if one.is_undone else 'ended'} by {one.ended_by} at {_when(one.ended_at)}{why}"
            )
    return "\n".join(lines)


@exclude_app.command("add")
def add(
    targets: Annotated[
        list[str], typer.Argument(help="Detectors (R22_S11 or 94), amps (R22_S11/C00), or whole rafts (R22).")
    ],
    reason: Annotated[str, typer.Option(help="Why: shown wherever the detector is.")],
    valid_from: Annotated[
        str, typer.Option("--from", help="First time or observing day (20261120); the next exposure if left out.")
    ] = "",
    valid_to: Annotated[
        str, typer.Option("--to", help="Time it is on again, or last observing day; open if left out.")
    ] = "",
    camera: CameraName = None,
    redis: Redis = None,
    data: Data = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print as JSON.")] = False,
) -> None:
    """Switch detectors or amps off. Example: rapid exclude add R22_S11 R01_S00/C07 --reason 'noisy'"""
    from rapid.exclusions.decide import parse_bound, parse_targets

    desk = open_desk(camera, redis, data)
    made = desk.store.exclude(
        desk.camera.name,
        parse_targets(targets, desk.camera),
        reason=reason,
        author=whoami(),
        valid_from=parse_bound(valid_from, "--from") if valid_from else desk.next_exposure(),
        valid_to=parse_bound(valid_to, "--to", is_end=True) if valid_to else None,
        now=desk.now,
    )
    desk.tell(made, "excluded")
    print_json([one.model_dump(mode="json") for one in made]) if as_json else print(
        _table(made, now=max(desk.now, made[0].valid_from), with_history=False)
    )


@exclude_app.command("end")
def end(
    which: Annotated[list[str], typer.Argument(help="Numbers from `rapid exclude list`, or what is off: R22_S11.")],
    at: Annotated[str, typer.Option(help="First time at which it is on again; the next exposure if left out.")] = "",
    undo: Annotated[bool, typer.Option("--undo", help="As if it had never been: it was a mistake.")] = False,
    reason: Annotated[str, typer.Option(help="Why; for the history.")] = "",
    camera: CameraName = None,
    redis: Redis = None,
    data: Data = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print as JSON.")] = False,
) -> None:
    """Switch something on again. Example: rapid exclude end R22_S11 --reason 'board replaced'"""
    from rapid.exclusions.decide import find_exclusions, parse_bound

    desk = open_desk(camera, redis, data)
    moment = parse_bound(at, "--at") if at else desk.next_exposure()
    known = desk.store.not_over(desk.camera.name, min(moment, desk.now))
    ended: list[Exclusion] = []
    try:
        for number in find_exclusions(which, known, desk.camera):
            ended.append(  # noqa: PERF401 - what was ended before a refusal is told of
                desk.store.end(desk.camera.name, number, by=whoami(), at=moment, now=desk.now, reason=reason, undo=undo)
            )
    finally:
        if ended:  # also if a later one of several is refused
            desk.tell(ended, "undone" if undo else "ended")
    print_json([one.model_dump(mode="json") for one in ended]) if as_json else print(
        _table(ended, now=desk.now, with_history=True)
    )


@exclude_app.command("list")
def list_(
    with_history: Annotated[bool, typer.Option("--all", help="Also what is over and what was undone.")] = False,
    at: Annotated[str, typer.Option(help="What was off at a time or observing day.")] = "",
    camera: CameraName = None,
    redis: Redis = None,
    data: Data = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print as JSON.")] = False,
) -> None:
    """List what is off or will be. Example: rapid exclude list --all --json"""
    from rapid.exclusions.decide import parse_bound

    desk = open_desk(camera, redis, data)
    if at:
        found = desk.store.active(desk.camera.name, parse_bound(at, "--at"))
    elif with_history:
        found = desk.store.history(desk.camera.name, limit=10_000)
    else:
        found = desk.store.not_over(desk.camera.name, desk.now)
    if as_json:
        print_json([one.model_dump(mode="json") for one in found])
    elif found:
        print(_table(found, now=desk.now, with_history=with_history))
    else:
        print("nothing is excluded")


def register(app: typer.Typer) -> None:
    """Add the commands."""
    from rapid.cli import exclude_exposures

    exclude_exposures.register(exclude_app)
    app.add_typer(exclude_app, name="exclude")
