"""`rapid replay play` and `rapid replay ctl`: a recorded night, into a system that runs or into one of its own."""

import contextlib
import json
import math
import signal
import sys
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from rapid.errors import ConfigurationError

if TYPE_CHECKING:
    from replay.clock import NightClock
    from replay.play import Player, PlayProgress
    from replay.recording import Recording
    from replay.system import SystemOptions
    from replay.targets import RawTarget, SystemDoor

CONTROL = Path("rapid-replay.sock")

LATE_S = 2.0
"""A raw that comes this much after its time is worth a word."""


def play(
    recording: Annotated[Path, typer.Argument(help="Recording, a folder or .zip.")],
    to: Annotated[
        str, typer.Option(help="Where raws go: a directory or s3://bucket/prefix; with --system a bucket or nothing.")
    ] = "",
    system: Annotated[
        Path | None, typer.Option(help="Play through a system of its own, started in this empty folder.")
    ] = None,
    straight: Annotated[
        bool, typer.Option("--straight", help="With --system: hand raws straight to the head's arrival door.")
    ] = False,
    out: Annotated[Path | None, typer.Option(help="With --system: record here what came of it.")] = None,
    speed: Annotated[str, typer.Option(help="1 for real cadence, 10 for ten times as fast, max.")] = "1",
    step: Annotated[bool, typer.Option("--step", help="Begin standing; '.' or `ctl step` go on one by one.")] = False,
    redis: Annotated[
        str | None, typer.Option(help="Board to play control changes and requests to, and whose clock goes along.")
    ] = None,
    data: Annotated[Path | None, typer.Option(help="Data folder of that system: exclusions are kept there.")] = None,
    notify: Annotated[str, typer.Option(help="With S3: /notify of the head or of ingest, told of every object.")] = "",
    seed: Annotated[int | None, typer.Option(help="Shuffle the raws of each exposure, the same for a seed.")] = None,
    loops: Annotated[int, typer.Option(min=0, help="How often; 0 for ever.")] = 1,
    max_gap: Annotated[
        float | None, typer.Option(min=0, help="Pass over what is longer than so long between two events [s].")
    ] = None,
    begin: Annotated[float, typer.Option("--from", min=0, help="Begin at this time of the night [s].")] = 0.0,
    workers: Annotated[int | None, typer.Option(min=1, help="With --system; as the night has it by default.")] = None,
    threads: Annotated[int, typer.Option(min=1, help="Raws made at a time.")] = 1,
    plain: Annotated[bool, typer.Option("--plain", help="Write uncompressed segments.")] = False,
    faults: Annotated[Path | None, typer.Option(help="More that goes wrong, YAML; see docs/replay.md.")] = None,
    control: Annotated[Path, typer.Option(help="Socket that `rapid replay ctl` speaks to.")] = CONTROL,
) -> None:
    """Play a recorded night. Example: rapid replay play night.zip --to raws --redis redis://127.0.0.1 --speed 10"""
    from replay.clock import NightClock
    from replay.events import RawsEvent
    from replay.play import end_of
    from replay.recording import read_recording

    night = read_recording(recording)
    if faults is not None:
        from replay.fault_files import load_faults
        from replay.faults import with_faults

        night = with_faults(night, load_faults(faults))
    if not any(isinstance(event, RawsEvent) for event in night.events):
        raise ConfigurationError("recording", f"no raw arrives in {recording}: there is nothing to play")
    clock = NightClock(_rate(speed), stepping=step)
    clock.ends_at_s = end_of(night)
    if begin:
        clock.seek(begin)
    if system is not None:
        from replay.system import SystemOptions

        if loops != 1:
            raise ConfigurationError(
                "loops", "a system of its own plays a night once: what it has done it does not do again"
            )
        options = SystemOptions(n_workers=workers, straight=straight, raws=_bucket(to, notify, redis))
        _play_in_system(night, system, clock, options, out=out, seed=seed, max_gap_s=max_gap, control=control)
        return
    for name, value in (("straight", straight), ("out", out), ("workers", workers)):
        if value:
            raise ConfigurationError(name, "is of a system of its own: --system DIR")
    if not to:
        raise ConfigurationError("to", "say where raws go: --to DIR, --to s3://..., or --system DIR")
    from replay.play import Player

    with _known_camera(night):
        night = _as_faults_make_it(night)
        player = Player(
            night,
            _target(to, notify),
            clock,
            door=_door(night, redis, data),
            seed=seed,
            loops=loops,
            max_gap_s=max_gap,
            n_threads=threads,
            compress=not plain,
        )
        _run(player, clock, control)
    for problem in player.progress.problems:
        print(f"rapid: {problem}", file=sys.stderr)
    if player.progress.problems:
        raise typer.Exit(1)


@contextlib.contextmanager
def _known_camera(night: "Recording") -> Iterator[None]:
    """Let this process know the recorded camera; nobody's folder is written to for it."""
    if not night.manifest.camera_yaml:
        yield
        return
    from rapid.wiring.camera import adopt_camera
    from replay.system import camera_file

    with tempfile.TemporaryDirectory(prefix="rapid-camera-") as folder:
        adopt_camera(camera_file(night, Path(folder)))
        yield


def _as_faults_make_it(night: "Recording") -> "Recording":
    """Return a night with its faults of raws; those of processes need a system of ours, and are left out."""
    from replay.events import FaultEvent
    from replay.fault_check import check_exposures
    from replay.faults import RawFault, faults_of, spoil_night

    check_exposures(night)
    for _, fault in faults_of(night):
        if not isinstance(fault, RawFault):
            print(f"rapid: fault {fault.kind} is left out: it needs a system of its own, --system", file=sys.stderr)
    spoilt = spoil_night(night)
    spoilt.events = [event for event in spoilt.events if not isinstance(event, FaultEvent)]
    return spoilt


def _bucket(to: str, notify: str, redis: str | None) -> str:
    """Return the bucket that a system of its own has its raws in, if it is not a folder."""
    from rapid.products.s3 import is_s3_uri

    if redis or notify:
        raise ConfigurationError("system", "a system of its own has its own board and head: leave --redis and --notify")
    if to and not is_s3_uri(to):
        raise ConfigurationError(
            "system", "a system of its own has its own raws: leave --to, or give it a bucket, s3://..."
        )
    return to


def _rate(text: str) -> float:
    if text == "max":
        return math.inf
    try:
        return float(text)
    except ValueError as error:
        raise ConfigurationError("speed", f"{text!r} is neither a number nor max") from error


def _target(to: str, notify: str) -> "RawTarget":
    from rapid.products.s3 import is_s3_uri
    from rapid.products.store import path_of
    from rapid.wiring.settings import make_settings
    from replay.targets import BucketTarget, DirectoryTarget

    if is_s3_uri(to):
        secret = make_settings().ingest_secret if notify else None
        return BucketTarget(to, notify_url=notify, secret=secret.get_secret_value() if secret is not None else "")
    if notify:
        raise ConfigurationError("notify", "a directory is watched: only a bucket tells of its objects")
    return DirectoryTarget(path_of(to))


def _door(night: "Recording", redis: str | None, data: Path | None) -> "SystemDoor | None":
    if redis is None:
        return None
    from rapid.control.store import ControlStore
    from rapid.dispatch.board import Board
    from rapid.pipeline.store import default_book
    from rapid.results.store import open_results
    from replay.targets import SystemDoor

    camera = night.camera()
    board = Board(redis, camera.name, outage_s=10.0)
    board.load()
    if not board.status().leader:
        raise ConfigurationError(
            "redis", f"no head leads a board of {camera.name} there: is a system of that camera up?"
        )
    results = open_results(str(data / "results.sqlite")) if data is not None else None
    return SystemDoor(camera, board, control=ControlStore(board.connection, camera, default_book()), results=results)


def _run(player: "Player", clock: "NightClock", control: Path) -> None:
    from replay.control import KEYS, ControlSocket, keys_of_terminal

    def status() -> dict[str, Any]:
        done = player.progress
        return {
            "steps": done.n_done,
            "of": done.n_steps,
            "raws": done.n_raws,
            "round": done.n_loops,
            "duration_s": done.duration_s,
            "last": done.last,
        }

    with ControlSocket(control, clock, status), keys_of_terminal(clock) as has_keys, _Line(player, clock):
        if has_keys:
            print(KEYS)
        try:
            player.run()
        except KeyboardInterrupt:
            clock.stop()
    done = player.progress
    rounds = f" in {done.n_loops} rounds" if done.n_loops > 1 else ""
    print(f"{done.n_raws} raws delivered{rounds}, {done.n_done} of {done.n_steps} steps")
    if player.progress.late_s > LATE_S:
        print(
            f"rapid: up to {player.progress.late_s:.0f} s late: raws are not made, or taken, as fast as the night goes; "
            "--speed lower, or --threads",
            file=sys.stderr,
        )


class _Line:
    """One line on the terminal that tells how far the night is."""

    def __init__(self, player: "Player", clock: "NightClock") -> None:
        self._player = player
        self._clock = clock
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._tell, name="progress", daemon=True)

    def __enter__(self) -> None:
        if sys.stdout.isatty():
            self._thread.start()

    def __exit__(self, *_: object) -> None:
        self._over.set()
        if self._thread.is_alive():
            self._thread.join(2.0)
            print()

    def _tell(self) -> None:
        while not self._over.wait(0.25):
            done = self._player.progress
            speed = f"{self._clock.rate:g}x" if math.isfinite(self._clock.rate) else "max"
            print(
                f"\r\033[K{self._clock.position_s:8.1f} of {done.duration_s:.0f} s  {speed}  "
                f"{self._clock.state.value}  {done.n_raws} raws  {done.last}",
                end="",
                flush=True,
            )


def _play_in_system(
    night: "Recording",
    folder: Path,
    clock: "NightClock",
    options: "SystemOptions",
    *,
    out: Path | None,
    seed: int | None,
    max_gap_s: float | None,
    control: Path,
) -> None:
    from replay.clock import Playing
    from replay.control import ControlSocket, keys_of_terminal
    from replay.recording import write_recording
    from replay.system import replay_night

    state: dict[str, Any] = {}

    def tell(done: "PlayProgress") -> None:
        state.update(steps=done.n_done, of=done.n_steps, raws=done.n_raws, last=done.last)
        if done.n_done % 50 == 0 or done.n_done == done.n_steps:
            print(f"{done.position_s:8.1f} of {done.duration_s:.0f} s  {done.n_raws} raws  {done.last}", flush=True)

    with ControlSocket(control, clock, lambda: dict(state)), keys_of_terminal(clock), _ended_by_ctrl_c(clock):
        found = replay_night(
            night,
            folder,
            clock=clock,
            seed=seed,
            max_gap_s=max_gap_s,
            options=options,
            on_step=tell,
        )
    if out is not None:
        write_recording(found, out, overwrite=True)
    n_complete = sum(summary.is_complete for summary in found.summaries)
    print(f"{n_complete} of {len(found.summaries)} summaries complete")
    _tell_incident(night, found)
    broken = {name: problems for name, problems in found.manifest.invariants.items() if problems}
    for name, problems in broken.items():
        for problem in problems:
            print(f"rapid: {name}: {problem}", file=sys.stderr)
    if clock.state is Playing.STOPPED:
        print(f"rapid: the night was ended after {state.get('steps', 0)} of its steps", file=sys.stderr)
    if broken:
        raise typer.Exit(1)


@contextlib.contextmanager
def _ended_by_ctrl_c(clock: "NightClock") -> Iterator[None]:
    """Let Ctrl-C end the night, so that what came of it so far is kept; once more ends everything."""
    before = signal.getsignal(signal.SIGINT)

    def end(*_: object) -> None:
        signal.signal(signal.SIGINT, before)
        print("rapid: no more comes; what has come is finished. Ctrl-C once more leaves it", file=sys.stderr)
        clock.stop()

    signal.signal(signal.SIGINT, end)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


def _tell_incident(night: "Recording", found: "Recording") -> None:
    """Say whether what took long took long again."""
    then, now = night.manifest.incident, found.manifest.incident
    if then is None or now is None:
        return
    if then.wait is not None and now.wait is not None:
        print(
            f"{then.subject} took {then.wait.took_s:g} s from its last raw then, its own jobs {then.wait.alone_s:g} s; now "
            f"{now.wait.took_s:g} s, its own jobs {now.wait.alone_s:g} s"
        )
    took = {(job.pipeline, job.detector): job for job in now.slowest}
    for job in then.slowest[:1]:
        again = took.get((job.pipeline, job.detector))
        told = f"{again.total_s:g} s, {again.step} {again.step_s:g} s" if again else "is none of the slowest"
        print(
            f"{job.detector} under {job.pipeline} took {job.total_s:g} s then, {job.step} {job.step_s:g} s; now {told}"
        )


def ctl(
    command: Annotated[list[str], typer.Argument(help="pause, resume, seek S, step [N], speed X, status or stop.")],
    control: Annotated[Path, typer.Option(help="Socket of the night that is played.")] = CONTROL,
    as_json: Annotated[bool, typer.Option("--json", help="Print as JSON.")] = False,
) -> None:
    """Steer a night that is played. Example: rapid replay ctl seek 120"""
    from replay.control import send_command

    answer = send_command(control, " ".join(command))
    if as_json:
        print(json.dumps(answer))
        return
    speed = answer.get("speed")
    print(
        f"{answer['state']} at {answer['position_s']} s, {'max' if speed is None else f'{speed:g}x'}, "
        f"step {answer.get('steps', 0)} of {answer.get('of', 0)}"
    )
