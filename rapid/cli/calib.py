"""`rapid calib build|verify|certify|reject|list|show`: make calibrations, see whether they are good, decide."""

import sys
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from rapid.cli.exclude import whoami
from rapid.cli.output import print_json
from rapid.cli.request import NOT_DONE, end_of, open_client
from rapid.cli.roles import CameraName, Data, Redis
from rapid.cli.undo import calib_group
from rapid.errors import ConfigurationError

if TYPE_CHECKING:
    from rapid.camera.models import Camera
    from rapid.requests.answers import CalibAnswer
    from rapid.results.models import CalibRecord
    from rapid.results.store import ResultsStore
    from rapid.verification.models import Verification
    from rapid.wiring.settings import RoleSettings

KINDS = ("bias", "dark", "flat", "ptc", "linearity", "crosstalk", "defects")

DEADLINE_S = 4 * 3600.0
"""Of a build: twenty exposures of a whole focal plane, behind a night's backlog."""

MAX_SHOWN = 20

AsJson = Annotated[bool, typer.Option("--json", help="Print as JSON.")]
By = Annotated[str, typer.Option(help="Who says so; you, if left out.")]


class _Desk:
    """The stores, opened where they are: a new and empty one would only say that there is nothing."""

    def __init__(self, camera: str | None, data: Any, redis: str | None = None) -> None:
        from rapid.results.store import open_results
        from rapid.wiring.camera import adopt_camera
        from rapid.wiring.settings import make_settings

        self.settings: RoleSettings = make_settings(camera=camera, data=data, redis_url=redis)
        self.camera: Camera = adopt_camera(self.settings.camera)
        if "://" not in self.settings.results and not Path(self.settings.results).exists():
            raise ConfigurationError(
                "data", f"there is no results store at {self.settings.results}; give --data, or RAPID_RESULTS_URL"
            )
        self.results: ResultsStore = open_results(self.settings.results)

    def matching(self, ids: list[str]) -> list[str]:
        """Return calib ids, patterns with * replaced by those they match.

        Raises
        ------
        ConfigurationError
            Raised for a pattern that matches none.
        """
        from fnmatch import fnmatchcase

        known: list[str] | None = None
        found: dict[str, None] = {}
        for one in ids:
            if "*" not in one:
                found[one] = None
                continue
            if known is None:
                known = [record.calib_id for record in self.results.calibs(self.camera.name, state=None)]
            matches = [calib_id for calib_id in known if fnmatchcase(calib_id, one)]
            if not matches:
                raise ConfigurationError("calib", f"{one} matches no calib of {self.camera.name}")
            found |= dict.fromkeys(sorted(matches))
        return list(found)

    def in_state(self, calib_ids: list[str], state: str) -> list[str]:
        """Return those of some calibs that are in a state; what is not there is left to whoever is asked to change it."""
        known = {record.calib_id: record.state.value for record in self.results.calibs(self.camera.name, state=None)}
        return [calib_id for calib_id in calib_ids if known.get(calib_id) == state]

    def tell(self, what: str, calib_ids: list[str]) -> None:
        """Tell displays; that the board is away does not undo what was stored."""
        from rapid.dispatch.board import Board
        from rapid.dispatch.models import EventKind
        from rapid.errors import StoreError

        board = Board(self.settings.redis_url, self.camera.name, outage_s=1.0)
        try:
            board.publish(EventKind.CALIB_CERTIFIED, data={"what": what, "calibs": calib_ids[:MAX_SHOWN]})
        except StoreError:
            print("rapid: stored; displays could not be told, there is no board", file=sys.stderr)


def build(
    kind: Annotated[str, typer.Argument(help=f"{', '.join(KINDS)}.")],
    exposures: Annotated[
        list[str] | None, typer.Option("--exposure", "-e", help="Exposure id or range FIRST-LAST; may be repeated.")
    ] = None,
    next_n: Annotated[int | None, typer.Option("--next", help="The next so many exposures of its type.")] = None,
    group: Annotated[str | None, typer.Option(help="GROUPID, exposures still to be taken included.")] = None,
    detectors: Annotated[
        str | None, typer.Option(help="A pattern expression; all science detectors if left out.")
    ] = None,
    config: Annotated[
        list[str] | None, typer.Option("--config", "-c", help="SETTING=VALUE of the build; may be repeated.")
    ] = None,
    wait: Annotated[bool, typer.Option("--wait/--no-wait", help="Wait for the verdict.")] = True,
    timeout: Annotated[float, typer.Option(min=0.001, help="Give up waiting after so long [s].")] = DEADLINE_S,
    camera: CameraName = None,
    redis: Redis = None,
    as_json: AsJson = False,
) -> None:
    """Have a calib built and verified. Example: rapid calib build bias -e 2026112000001-2026112000020

    It is certified if it passes; one that does not is kept as rejected. Exit status 0 if it passed, 1 if not, 3 if it is not
    done yet.
    """
    from rapid.cli.request import read_config
    from rapid.client import make_spec
    from rapid.requests.models import Combine, RequestState

    if kind not in KINDS:
        raise ConfigurationError("kind", f"{kind!r} is none of {', '.join(KINDS)}")
    fields: dict[str, Any] = {"combine": f"build_{kind}", "deadline_s": DEADLINE_S, "label": f"build {kind}"}
    if exposures:
        fields["exposures"] = exposures
    types = sorted(one.value for one in Combine(f"build_{kind}").input_types)
    of_type = {"image_type": types[0]} if len(types) == 1 else {}
    if next_n is not None:
        fields["next"] = {"n": next_n, **of_type}
    if group is not None:
        fields["group"] = {"group_id": group, **of_type}
    if detectors is not None:
        fields["detectors"] = detectors
    if config:
        fields["config"] = read_config([f"build_{kind}.{item}" for item in config])
    with open_client(camera, redis) as client:
        request = client.submit(make_spec(**fields))
        record = end_of(client, request.ticket, is_waited_for=wait, timeout_s=timeout, as_json=as_json)
    if as_json:
        print_json(record.model_dump(mode="json", exclude_none=True))
    elif record.error is not None:
        print(f"rapid: {record.error.message}", file=sys.stderr)
    answer = record.answer.calib if record.answer else None
    if answer is not None and not as_json:
        print(_answer_text(answer))
    if record.state is not RequestState.DONE or answer is None or not answer.passed:
        raise typer.Exit(NOT_DONE)


def _answer_text(answer: "CalibAnswer") -> str:
    verdict = "passed" if answer.passed else f"did not pass ({answer.outcome.replace('_', ' ')})"
    lines = [
        f"{answer.kind} of {len(answer.inputs)} exposures, {len(answer.calib_ids)} detectors, {answer.n_amps} amps: {verdict}"
    ]
    lines += [
        f"  {name}: {calib_id} {answer.states.get(name, '')}"
        for name, calib_id in list(answer.calib_ids.items())[:MAX_SHOWN]
    ]
    for one in answer.failures[:MAX_SHOWN]:
        place = f"{one.detector} {one.amp}".rstrip()
        lines.append(
            f"  {place} {one.test}: {one.value:.4g}, limit {one.limit:.4g}"
            if one.value is not None and one.limit is not None
            else f"  {place} {one.test}"
        )
    lines += [f"  {name}: {why}" for name, why in list(answer.not_tested.items())[:MAX_SHOWN]]
    return "\n".join(lines)


def verify(
    what: Annotated[list[str], typer.Argument(help="Calib ids (* stands for anything), or exposure ids.")],
    pipeline: Annotated[str, typer.Option(help="Of exposures with several: bias, dark, flat, build_bias, ...")] = "",
    run: Annotated[str, typer.Option(help="Of exposures: the run whose results are looked at.")] = "prompt",
    as_yaml: Annotated[bool, typer.Option("--yaml", help="Print as YAML, in cp_verify's layout.")] = False,
    every: Annotated[bool, typer.Option("--all", help="Print also the tests that passed.")] = False,
    camera: CameraName = None,
    data: Data = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print as JSON, in cp_verify's layout.")] = False,
) -> None:
    """Verify calibs anew by the thresholds of now, or show the verdict on exposures. Example: rapid calib verify 2026112000012

    A calib is held against the thresholds in force on its day; whether it is certified stays as it is. Exit status 0 if all
    pass, 1 if not.
    """
    from rapid.requests.calibs import verify_calibs

    desk = _Desk(camera, data)
    numbers = [int(one) for one in what if one.isdecimal()]
    ids = desk.matching([one for one in what if not one.isdecimal()])
    found = verify_calibs(desk.results, desk.camera, ids, thresholds=desk.settings.thresholds) if ids else []
    documents: dict[str, Any] = {}
    passed = all(one.outcome.is_success for one in found)
    lines = []
    from rapid.verification.layout import detector_layout

    for calib_id, one in zip(ids, found, strict=True):
        documents[calib_id] = detector_layout(one, calib_id=calib_id)
        lines += [f"{calib_id}: {one.outcome.value}", *_lines(one, every=every)]
    for exposure in numbers:
        document, more, is_good = _exposure(desk, exposure, pipeline=pipeline, run=run, every=every)
        documents[str(exposure)] = document
        lines += more
        passed = passed and is_good
    if as_yaml:
        from rapid.verification.layout import as_yaml as to_yaml

        sys.stdout.write(to_yaml(documents).decode())
    elif as_json:
        print_json(documents)
    else:
        print("\n".join(lines))
    if not passed:
        raise typer.Exit(NOT_DONE)


def _lines(found: "Verification", *, every: bool) -> list[str]:
    from rapid.verification.models import Outcome

    quiet = set() if every else {Outcome.PASS, Outcome.NOT_MEASURED}
    return [f"  {one}" for one in found.results() if one.outcome not in quiet]


def _exposure(
    desk: _Desk, exposure: int, *, pipeline: str, run: str, every: bool
) -> tuple[dict[str, Any], list[str], bool]:
    """Return the verdict on an exposure as a document, in lines, and whether it passes."""
    from rapid.errors import NotFoundError
    from rapid.verification.decide import roll_up_results
    from rapid.verification.layout import detector_layout, exposure_layout
    from rapid.verification.models import Verification
    from rapid.verification.thresholds import load_thresholds

    results = [
        result
        for result in desk.results.results(exposure, camera=desk.camera.name, run=run, pipeline=pipeline or None)
        if result.verification is not None
    ]
    names = sorted({result.pipeline for result in results})
    if not results:
        others = sorted({one.pipeline for one in desk.results.results(exposure, camera=desk.camera.name, run=run)})
        if not others:
            raise ConfigurationError("what", f"{desk.camera.name} has no results of exposure {exposure}")
        what = f"under {pipeline}" if pipeline else f"it was processed by {', '.join(others)}"
        raise ConfigurationError("what", f"exposure {exposure} has no verification: {what}")
    chosen = next((name for name in names if not name.startswith("build_")), names[0])
    results = [result for result in results if result.pipeline == chosen]
    verdict = roll_up_results(results, camera=desk.camera, thresholds=load_thresholds(desk.settings.thresholds))
    if verdict is None:
        raise NotFoundError("verification of exposure", exposure, owner=desk.camera.name)
    document = exposure_layout(verdict)
    document["DETECTORS"] = {
        r.detector_name: detector_layout(Verification.from_stored(r.verification)) for r in results
    }
    lines = [f"{exposure} {chosen}: {verdict.outcome.value}, {verdict.n_failed_amps} of {verdict.n_amps} amps failed"]
    for result in results:
        lines += _lines(Verification.from_stored(result.verification), every=every)
    return document, lines, verdict.outcome.is_success


def certify(
    ids: Annotated[list[str], typer.Argument(help="Calib ids; * stands for anything.")],
    override: Annotated[bool, typer.Option("--override", help="Also those that did not pass; needs --reason.")] = False,
    reason: Annotated[str, typer.Option(help="Why; is written down.")] = "",
    by: By = "",
    camera: CameraName = None,
    redis: Redis = None,
    data: Data = None,
    as_json: AsJson = False,
) -> None:
    """Let look-ups choose calibs: all that are named, or none. Example: rapid calib certify LSSTCam-094-bias-20261120T200100-v1 --override --reason 'C07 is known to be noisy'"""
    from rapid.requests.calibs import certify_calibs

    desk = _Desk(camera, data, redis)
    chosen = desk.matching(ids)
    unchanged = desk.in_state(chosen, "certified")
    records = certify_calibs(
        desk.results, desk.camera.name, chosen, author=by or whoami(), reason=reason, override=override
    )
    desk.tell("certify", chosen)
    _print(records, as_json=as_json)
    _say_unchanged(unchanged, "certified")


def reject(
    ids: Annotated[list[str], typer.Argument(help="Calib ids; * stands for anything.")],
    reason: Annotated[str, typer.Option(help="Why; is written down.")],
    by: By = "",
    camera: CameraName = None,
    redis: Redis = None,
    data: Data = None,
    as_json: AsJson = False,
) -> None:
    """Take the certificate of calibs away. Example: rapid calib reject LSSTCam-094-bias-20261120T200100-v1 --reason 'light leak'"""
    from rapid.requests.calibs import reject_calibs

    desk = _Desk(camera, data, redis)
    chosen = desk.matching(ids)
    unchanged = desk.in_state(chosen, "rejected")
    records = reject_calibs(desk.results, desk.camera.name, chosen, author=by or whoami(), reason=reason)
    desk.tell("reject", chosen)
    _print(records, as_json=as_json)
    _say_unchanged(unchanged, "rejected")


def _say_unchanged(calib_ids: list[str], state: str) -> None:
    for calib_id in calib_ids[:MAX_SHOWN]:
        print(f"rapid: {calib_id} was {state} before: nothing changed", file=sys.stderr)


def list_(
    kind: Annotated[str | None, typer.Option(help=f"Only of a kind: {', '.join(KINDS)}.")] = None,
    detector: Annotated[str | None, typer.Option(help="Only of a detector: R22_S11 or 94.")] = None,
    physical_filter: Annotated[str | None, typer.Option("--filter", help="Only of a filter.")] = None,
    state: Annotated[str | None, typer.Option(help="Only certified, rejected or withdrawn ones.")] = None,
    at: Annotated[str | None, typer.Option(help="Only those valid at a time [TAI, ISO].")] = None,
    as_of: Annotated[
        str | None, typer.Option(help="As the registry was at a moment [UTC, ISO]: what look-ups found then.")
    ] = None,
    limit: Annotated[int, typer.Option(min=1, max=100_000, help="How many, the preferred one first.")] = 200,
    camera: CameraName = None,
    data: Data = None,
    as_json: AsJson = False,
) -> None:
    """List calibs. Example: rapid calib list --kind bias --detector R22_S11 --at 2026-11-21T03:00:00"""
    from rapid.results.models import CalibState

    desk = _Desk(camera, data)
    number = None
    if detector is not None:
        known = desk.camera.by_name.get(detector) or (
            desk.camera.by_id.get(int(detector)) if detector.isdecimal() else None
        )
        if known is None:
            raise ConfigurationError("detector", f"{desk.camera.name} has no detector {detector}")
        number = known.id
    if state is not None and state not in {one.value for one in CalibState}:
        raise ConfigurationError("state", f"{state!r} is none of {', '.join(one.value for one in CalibState)}")
    wanted = CalibState(state) if state else CalibState.CERTIFIED if as_of else None
    records = desk.results.calibs(
        desk.camera.name,
        kind=kind,
        detector=number,
        physical_filter=physical_filter,
        at=_moment(at, "at"),
        as_of=_moment(as_of, "as_of"),
        state=wanted,
        limit=limit,
    )
    if not records:  # a mistyped word must not pass for an answer; a site's own kind is known by its calibs
        for option, word, words in (("kind", kind, KINDS), ("filter", physical_filter, desk.camera.filters)):
            if word and words and word not in words:
                raise ConfigurationError(option, f"{word!r} is none of {', '.join(words)}")
    _print(records, as_json=as_json)


def _moment(text: str | None, option: str) -> datetime | None:
    if text is None:
        return None
    try:
        return datetime.fromisoformat(text)
    except ValueError as error:
        raise ConfigurationError(option, f"{text!r} is no time; give it as 2026-11-21T03:00:00") from error


def _print(records: "list[CalibRecord]", *, as_json: bool) -> None:
    if as_json:
        print_json([record.model_dump(mode="json", exclude={"verification", "provenance"}) for record in records])
        return
    if not records:
        print("no calibs")
        return
    print(f"{'state':11}{'outcome':14}{'valid from (TAI)':21}{'by':18}  calib")
    for record in records:
        outcome = (record.outcome or "-").replace("_", " ")
        mark = "*" if record.is_overridden else ""
        failed = f"  {', '.join(record.failures[:4])}" if record.failures else ""
        print(
            f"{record.state.value + mark:11}{outcome:14}{record.valid_from:%Y-%m-%dT%H:%M:%S}  "
            f"{record.certified_by[:18]:18}  {record.calib_id}{failed}"
        )


def show(
    calib_id: Annotated[str, typer.Argument(help="From `rapid calib list`.")],
    every: Annotated[bool, typer.Option("--all", help="Print also the tests that passed.")] = False,
    camera: CameraName = None,
    data: Data = None,
    as_json: AsJson = False,
) -> None:
    """Show a calib: validity, inputs, verification and history. Example: rapid calib show LSSTCam-094-bias-20261120T200100-v1"""
    from rapid.verification.models import Verification

    desk = _Desk(camera, data)
    record = desk.results.calib(desk.camera.name, calib_id)
    events = desk.results.calib_events(desk.camera.name, calib_id)
    if as_json:
        facts = record.model_dump(mode="json")
        facts["file"] = str(desk.settings.calibs.absolute() / record.path)
        facts["history"] = [event.model_dump(mode="json") for event in events]
        print_json(facts)
        return
    until = f" to {record.valid_to:%Y-%m-%dT%H:%M:%S}" if record.valid_to else ""
    print(f"{record.calib_id}: {record.state.value}{', overridden' if record.is_overridden else ''}")
    print(
        f"  {record.kind} of {desk.camera.by_id[record.detector].name}, {record.physical_filter or 'no filter'}, version {record.version}"
    )
    print(
        f"  valid from {record.valid_from:%Y-%m-%dT%H:%M:%S}{until} TAI; made {record.created_at:%Y-%m-%d %H:%M:%S} UTC"
    )
    print(f"  file {desk.settings.calibs.absolute() / record.path}")
    print(f"  sha256 {record.sha256}")
    if record.inputs:
        print(f"  of {len(record.inputs)} exposures, {record.inputs[0]} to {record.inputs[-1]}")
    for event in events:
        words = f": {event.reason}" if event.reason else ""
        print(
            f"  {event.at:%Y-%m-%d %H:%M:%S} {event.state.value} by {event.author}{' (override)' if event.is_override else ''}{words}"
        )
    if record.verification is None:
        print("  never verified")
        return
    found = Verification.from_stored(record.verification)
    print(f"  verification: {found.outcome.value}, {len(found.failing_amps)} of {len(found.amps)} amps failed")
    for line in _lines(found, every=every):
        print(f"  {line}")


def register(app: typer.Typer) -> None:
    """Add the commands to `rapid calib`."""
    group = calib_group(app)
    for name, command in (
        ("build", build),
        ("verify", verify),
        ("certify", certify),
        ("reject", reject),
        ("list", list_),
        ("show", show),
    ):
        group.command(name)(command)
