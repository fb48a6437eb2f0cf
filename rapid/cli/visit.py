"""`rapid visit`: announce exposures that are coming, take that back, list what was announced."""

import asyncio
import json
import sys
from pathlib import Path
from typing import Annotated

import typer

from rapid.cli.output import print_json
from rapid.cli.roles import CameraName, Redis

visit = typer.Typer(
    help="Announcements that exposures are coming: workers make ready what they will need. Example: "
    "rapid visit announce visit.json --camera LSSTCam",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
)


@visit.command()
def announce(
    file: Annotated[Path, typer.Argument(help="The summit's nextVisit as JSON, or - for standard input.")],
    camera: CameraName = None,
    redis: Redis = None,
) -> None:
    """Announce a visit.

    Example: echo '{"groupId": "2026-11-20T03:04:05.678", "instrument": "LSSTCam", "filters": "r_57"}' | rapid visit announce -
    """
    from pydantic import ValidationError

    from rapid.errors import ConfigurationError
    from rapid.next_visit.models import NextVisit, messages_of
    from rapid.wiring.settings import make_settings
    from rapid.wiring.visits import announce_visits

    try:
        text = sys.stdin.read() if str(file) == "-" else file.read_text(encoding="utf-8")
        visits = [NextVisit.model_validate(one) for one in messages_of(json.loads(text))]
    except OSError as error:
        raise ConfigurationError("file", f"{file} cannot be read: {error.strerror}") from None
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        raise ConfigurationError(".".join(map(str, first["loc"])) or "message", first["msg"]) from None
    except ValueError as error:
        raise ConfigurationError("file", f"{file} is no JSON: {error}") from None
    settings = make_settings(camera=camera, redis_url=redis)
    for one in visits:
        if one.instrument != settings.camera:
            raise ConfigurationError("instrument", f"{one.instrument} is announced, this is {settings.camera}")
    for one, is_new in zip(visits, asyncio.run(announce_visits(settings, visits)), strict=True):
        print(f"{one.group_id}: {'announced' if is_new else 'known'}")


@visit.command()
def cancel(
    group: Annotated[str, typer.Argument(help="Group of the visit that is not coming.")],
    camera: CameraName = None,
    redis: Redis = None,
) -> None:
    """Take an announcement back; exit status 1 if there is none.

    Example: rapid visit cancel 2026-11-20T03:04:05.678 --camera LSSTCam
    """
    from rapid.wiring.settings import make_settings
    from rapid.wiring.visits import cancel_visit

    was_there = asyncio.run(cancel_visit(make_settings(camera=camera, redis_url=redis), group))
    print("canceled" if was_there else "no such announcement")
    if not was_there:
        raise typer.Exit(1)


@visit.command("list")
def list_(camera: CameraName = None, redis: Redis = None) -> None:
    """List announced visits and the exposures of their groups, as JSON.

    Example: rapid visit list --camera LSSTCam
    """
    from rapid.wiring.settings import make_settings
    from rapid.wiring.visits import read_visits

    found = asyncio.run(read_visits(make_settings(camera=camera, redis_url=redis)))
    print_json([state.model_dump(mode="json") for state in found])


def register(app: typer.Typer) -> None:
    """Add the commands."""
    app.add_typer(visit, name="visit")
