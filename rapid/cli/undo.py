"""`rapid calib exclude|affected|redo`: take a bad calib out of use, see what it has touched, have exactly that done again."""

import sys
from typing import TYPE_CHECKING, Annotated

import typer

from rapid.cli.exclude import open_desk, whoami
from rapid.cli.output import print_json
from rapid.cli.roles import CameraName, Data, Redis
from rapid.errors import ConfigurationError

if TYPE_CHECKING:
    from rapid.provenance.models import Affected
    from rapid.results.models import CalibRecord

NOT_DONE = 1

DEADLINE_S = 86_400.0
"""A night of LSSTCam as backlog beside a running one may take hours."""

MAX_SHOWN = 40

AsJson = Annotated[bool, typer.Option("--json", help="Print as JSON.")]
CalibId = Annotated[str, typer.Argument(help="Id of the calib; * stands for anything: 'LSSTCam-*-flat-r_57-*-v1'.")]
Exposure = Annotated[int | None, typer.Option("--exposure", "-e", help="An exposure that calibs were built from.")]


def _check_source(calib_id: str, exposure: int | None) -> None:
    if bool(calib_id) == (exposure is not None):
        raise ConfigurationError("calib", "give the id of a calib, or --exposure")


def _text_of(found: "Affected") -> str:
    bad = ", ".join(map(str, (*found.calibs, *found.exposures)[:5]))
    lines = [f"bad: {bad}{' and more' if len(found.calibs) > 5 else ''}"]
    lines.append(f"{len(found.built)} calibs were built with it")
    lines += [
        f"  stage {one.stage}  {one.calib_id:60} {one.state:10} with {', '.join(one.because_of[:3])}"
        for one in found.built[:MAX_SHOWN]
    ]
    lines.append(f"{found.n_results} results of {found.n_exposures} exposures used it")
    lines += [
        f"  {batch.exposure}  {batch.pipeline:14} {batch.run:20} {len(batch.detectors)} detectors"
        for batch in found.batches[:MAX_SHOWN]
    ]
    if len(found.built) > MAX_SHOWN or len(found.batches) > MAX_SHOWN:
        lines.append("  ... (all of it: --json)")
    return "\n".join(lines)


def affected(
    calib_id: Annotated[str, typer.Argument(help="Id of the calib; * stands for anything.")] = "",
    exposure: Exposure = None,
    camera: CameraName = None,
    redis: Redis = None,
    data: Data = None,
    as_json: AsJson = False,
) -> None:
    """Show what a calib, or an exposure, has touched. Example: rapid calib affected LSSTCam-094-bias-20261120T200000-v1"""
    from rapid.provenance.store import ProvenanceStore

    _check_source(calib_id, exposure)
    desk = open_desk(camera, redis, data)
    store = ProvenanceStore(desk.store.engine)
    if exposure is None:
        found = store.affected(desk.camera.name, calib=calib_id)
    else:
        found = store.affected(desk.camera.name, exposure=exposure)
    if as_json:
        print_json({**found.model_dump(mode="json"), "n_results": found.n_results, "n_exposures": found.n_exposures})
    else:
        print(_text_of(found))


def exclude(
    calib_id: CalibId,
    reason: Annotated[str, typer.Option(help="Why: it stays in the registry's history.")] = "",
    undo: Annotated[bool, typer.Option("--undo", help="Put it back into look-ups: it was a mistake.")] = False,
    camera: CameraName = None,
    redis: Redis = None,
    data: Data = None,
    as_json: AsJson = False,
) -> None:
    """Take a bad calib out of look-ups. Example: rapid calib exclude 'LSSTCam-*-flat-r_57-20261120T200100-v1' --reason 'lamp off'"""
    from rapid.calibs.replace import restore, withdraw
    from rapid.exclusions.decide import check_reason
    from rapid.provenance.store import ProvenanceStore
    from rapid.results.store import ResultsStore

    why = check_reason(reason) if reason.strip() or not undo else "it was a mistake"
    desk = open_desk(camera, redis, data)
    ids = ProvenanceStore(desk.store.engine).matching_calibs(desk.camera.name, calib_id)
    change = restore if undo else withdraw
    changed: list[CalibRecord] = change(
        ResultsStore(desk.store.engine), desk.camera.name, ids, author=whoami(), reason=why
    )
    desk.announce("calibs restored" if undo else "calibs withdrawn", [one.calib_id for one in changed])
    if as_json:
        print_json([one.model_dump(mode="json", exclude={"verification"}) for one in changed])
        return
    for one in changed:
        print(f"{one.calib_id}  {one.state.value}")
    for calib_id in sorted(set(ids) - {one.calib_id for one in changed})[:MAX_SHOWN]:
        print(
            f"rapid: {calib_id} {'was not withdrawn' if undo else 'was withdrawn before'}: nothing changed",
            file=sys.stderr,
        )
    print(f"{len(changed)} of {len(ids)} calibs {'are in look-ups again' if undo else 'withdrawn'}")


def redo(
    calib_id: Annotated[str, typer.Argument(help="Id of the bad calib; * stands for anything.")] = "",
    exposure: Exposure = None,
    replacement: Annotated[
        str, typer.Option("--with", help="Calib to take instead, * as above; what look-up gives, if left out.")
    ] = "",
    wait: Annotated[bool, typer.Option("--wait", help="Wait until it is done.")] = False,
    timeout: Annotated[float, typer.Option("--timeout", min=0.001, help="Give up waiting after so long [s].")] = 3600.0,
    camera: CameraName = None,
    redis: Redis = None,
    as_json: AsJson = False,
) -> None:
    """Have exactly what it has touched done again, as backlog. Example: rapid calib redo 'LSSTCam-*-flat-r_57-20261120T200100-v1' --wait"""
    from rapid.cli.request import end_of, open_client
    from rapid.client import make_spec
    from rapid.requests.models import RequestState
    from rapid.requests.store import record_facts

    _check_source(calib_id, exposure)
    source: dict[str, str | int] = {"calib": calib_id} if exposure is None else {"exposure": exposure}
    if replacement:
        source["replacement"] = replacement
    name = calib_id or str(exposure)
    spec = make_spec(
        select={"affected": source}, priority="backlog", deadline_s=DEADLINE_S, label=f"redo: {name}"[:200]
    )
    with open_client(camera, redis) as client:
        request = client.submit(spec)
        record = end_of(client, request.ticket, is_waited_for=wait, timeout_s=timeout, as_json=as_json)
    if as_json:
        print_json(record_facts(record))
    elif record.error is not None:
        print(f"rapid: {record.error.message}", file=sys.stderr)
    if record.answer is not None and record.answer.redo is not None and not as_json:
        done = record.answer.redo
        print(f"{done.n_redone} of {done.n_results} results of {len(done.exposures)} exposures done again")
        for old, new in list(done.rebuilt.items())[:MAX_SHOWN]:
            print(f"  {old} -> {new}")
        for batch, reasons in list(_by_batch(done.not_redone).items())[:MAX_SHOWN]:
            print(f"  not done: {batch}, {len(reasons)} detectors: {reasons[0]}")
    if record.state is not RequestState.DONE or record.answer is None or not record.answer.is_complete:
        raise typer.Exit(NOT_DONE)


def _by_batch(not_redone: dict[str, str]) -> dict[str, list[str]]:
    """Return the reasons of jobs by what they are of: nearly always all detectors have the same one."""
    found: dict[str, list[str]] = {}
    for job, why in not_redone.items():
        found.setdefault(job.rpartition(".")[0], []).append(why)
    return found


def calib_group(app: typer.Typer) -> typer.Typer:
    """Return the group `rapid calib`, a new one if no module has made it yet."""
    for known in app.registered_groups:
        if known.name == "calib" and known.typer_instance is not None:
            return known.typer_instance
    group = typer.Typer(help="Calibrations.", no_args_is_help=True)
    app.add_typer(group, name="calib")
    return group


def register(app: typer.Typer) -> None:
    """Add the commands to `rapid calib`; after the modules that make the group."""
    group = calib_group(app)
    group.command("exclude")(exclude)
    group.command("affected")(affected)
    group.command("redo")(redo)
