"""The command line: `rapid`."""

import sys

import typer

from rapid.cli import (
    acl,
    calib,
    campaign,
    catalogue,
    cluster,
    control,
    exclude,
    facts,
    ingest,
    jobs,
    night,
    patterns,
    process,
    publish,
    request,
    roles,
    sinks,
    template,
    trend,
    undo,
    up,
    visit,
    warm_up,
)
from rapid.errors import RapidError

app = typer.Typer(
    name="rapid",
    help="Tells a telescope's control room, seconds after the shutter closes, whether the picture is any good.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
for module in (
    up,
    roles,
    publish,
    ingest,
    process,
    facts,
    jobs,
    night,
    exclude,
    patterns,
    request,
    campaign,
    control,
    acl,
    catalogue,
    cluster,
    sinks,
    template,
    undo,
    calib,
    trend,
    visit,
    warm_up,
):
    module.register(app)


def main() -> None:
    """Run `rapid`; an error is one line on standard error, and exit status 2 (usage) or 1."""
    from replay.cli import register as register_replay

    register_replay(app)
    try:
        app()
    except RapidError as error:
        print(f"rapid: {error.message}", file=sys.stderr)
        sys.exit(1)
