"""`rapid status` and `rapid jobs`: see the board, and mend it."""

import time
from typing import Annotated, Any

import typer

from rapid.cli.output import print_json
from rapid.cli.roles import CameraName, Redis

CLI_OUTAGE_S = 3.0
"""A person at a terminal wants to be told, not to wait."""

jobs_app = typer.Typer(help="See and mend jobs that failed for good.", no_args_is_help=True)


def _board(camera: str | None, redis: str | None) -> Any:
    from rapid.dispatch.board import Board
    from rapid.wiring.camera import adopt_camera
    from rapid.wiring.settings import make_settings

    settings = make_settings(camera=camera, redis_url=redis)
    return Board(settings.redis_url, adopt_camera(settings.camera).name, outage_s=CLI_OUTAGE_S)


def _camera_of(name: str | None) -> Any:
    from rapid.wiring.camera import adopt_camera
    from rapid.wiring.settings import make_settings

    return adopt_camera(make_settings(camera=name).camera)


def _newest_facts(board: Any) -> dict[str, Any]:
    """Return how far the newest exposure is, and which of its detectors are off and why; empty without one."""
    keys = board.recent(8)
    states = [board.state(key) for key in keys if key.exposure_id == max(one.exposure_id for one in keys)]
    state = max(filter(None, states), key=lambda one: len(one.expected), default=None)
    if state is None:
        return {}
    by_state: dict[str, list[int]] = {}
    for detector, found in sorted(state.detectors.items()):
        by_state.setdefault(found.state.value, []).append(detector)
    return {
        "exposure_id": state.key.exposure_id,
        "pipeline": state.key.pipeline,
        "image_type": state.image_type,
        "detectors": {name: len(numbers) for name, numbers in sorted(by_state.items())},
        "excluded": {number: state.detectors[number].reason for number in by_state.get("excluded", ())},
        "excluded_amps": state.info.get("excluded_amps", {}),
    }


def _newest_text(newest: dict[str, Any], names: dict[int, str]) -> list[str]:
    if not newest:
        return []
    counts = ", ".join(f"{count} {state}" for state, count in newest["detectors"].items())
    lines = [f"newest exposure {newest['exposure_id']} ({newest['image_type']}, {newest['pipeline']}): {counts}"]
    lines += [f"  excluded {names.get(number, number)}: {why}" for number, why in newest["excluded"].items()]
    for detector, amps in newest["excluded_amps"].items():
        lines += [f"  excluded {detector}/{amp}: {why}" for amp, why in amps.items()]
    return [*lines, ""]


def _status_text(status: Any, newest: list[str]) -> str:
    lines = [
        (
            f"mode {status.mode.value}   leader {status.leader or '(none)'}   running {status.running}   "
            f"delayed {status.delayed}   gathers due {status.gathers_due} running {status.gathers_running}   "
            f"dead letters {status.dead_letters}"
        ),
        "",
        *newest,
        f"{'pool':14}{'current':>9}{'backlog':>9}{'idle workers':>14}",
    ]
    lines += [f"{q.pool:14}{q.current:>9}{q.backlog:>9}{q.parked:>14}" for q in status.queues]
    lines += ["", f"{'worker':28}{'state':8}{'seen':>9}  job"]
    lines += [
        f"{w.worker_id:28}{w.state:8}{(status.now_ms - w.seen_ms) / 1000:>7.1f} s  {w.job_id or '-'}"
        for w in status.workers
    ]
    if status.counters:
        lines += ["", "  ".join(f"{name} {value}" for name, value in sorted(status.counters.items()))]
    return "\n".join(lines)


def status(
    camera: CameraName = None,
    redis: Redis = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print as JSON.")] = False,
    watch: Annotated[
        bool, typer.Option("--watch", help="Show it anew whenever something happens, until Ctrl-C.")
    ] = False,
) -> None:
    """Show the board: newest exposure, queues, workers, totals. Example: rapid status --camera LSSTCam --watch"""
    with _board(camera, redis) as board:
        names = {detector.id: detector.name for detector in _camera_of(camera).detectors}

        def shown() -> str:
            return _status_text(board.status(), _newest_text(_newest_facts(board), names))

        if not watch:
            if as_json:
                print_json({**board.status().model_dump(mode="json"), "newest": _newest_facts(board)})
            else:
                print(shown())
            return
        from rich.live import Live
        from rich.text import Text

        last = "$"
        with Live(Text(shown()), auto_refresh=False) as live:
            while True:
                try:
                    events = board.events(last, timeout_s=2.0)
                except KeyboardInterrupt:
                    return
                last = events[-1].event_id if events else last
                live.update(Text(shown()), refresh=True)


@jobs_app.command("failed")
def failed(
    camera: CameraName = None,
    redis: Redis = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print as JSON.")] = False,
    limit: Annotated[int, typer.Option(min=1, help="How many, newest first.")] = 50,
) -> None:
    """List dead letters, newest first."""
    with _board(camera, redis) as board:
        letters = board.dead_letters(limit)
    if as_json:
        print_json([letter.model_dump(mode="json") for letter in letters])
        return
    for letter in letters:
        when = time.strftime("%H:%M:%S", time.gmtime(letter.at_ms / 1000))
        print(f"{when}  {letter.job_id}  {letter.error.get('code')}: {letter.error.get('message')}")
    if not letters:
        print("no dead letters")


@jobs_app.command("show")
def show(job_id: str, camera: CameraName = None, redis: Redis = None) -> None:
    """Show one dead letter with its traceback."""
    with _board(camera, redis) as board:
        letter = next((found for found in board.dead_letters(5000) if found.job_id == job_id), None)
    if letter is None:
        from rapid.errors import NotFoundError

        raise NotFoundError("dead letter", job_id)
    print_json(letter.model_dump(mode="json", exclude={"error": {"traceback"}}))
    print(letter.error.get("traceback", "(no traceback)"))


@jobs_app.command("retry")
def retry(job_id: str, camera: CameraName = None, redis: Redis = None) -> None:
    """Queue a dead letter's job again."""
    with _board(camera, redis) as board:
        board.retry_dead_letter(job_id)
    print(f"{job_id} is queued again")


@jobs_app.command("discard")
def discard(job_id: str, camera: CameraName = None, redis: Redis = None) -> None:
    """Drop a dead letter."""
    with _board(camera, redis) as board:
        dropped = board.discard_dead_letter(job_id)
    print(f"{job_id} is dropped" if dropped else f"{job_id} is no dead letter")
    if not dropped:
        raise typer.Exit(1)


def register(app: typer.Typer) -> None:
    """Add the commands."""
    app.command()(status)
    app.add_typer(jobs_app, name="jobs")
