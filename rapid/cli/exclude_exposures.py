"""`rapid exclude exposure|exposures|include|rule`: what calibs are not to be built from."""

from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Annotated

import typer

from rapid.cli.output import print_json
from rapid.cli.roles import CameraName, Data, Redis

if TYPE_CHECKING:
    from rapid.exclusions.bad_exposures import BadExposure
    from rapid.exclusions.rule_store import ExclusionRule

MAX_SHOWN = 60

AsJson = Annotated[bool, typer.Option("--json", help="Print as JSON.")]
Reason = Annotated[str, typer.Option(help="Why: shown wherever it matters.")]
FirstDay = Annotated[int | None, typer.Option("--from", help="First observing day (20261120); today's if left out.")]
LastDay = Annotated[int | None, typer.Option("--to", help="Last observing day; open if left out.")]

rule_app = typer.Typer(help="Rules on metrics that leave exposures out of builds.", no_args_is_help=True)


def _today() -> int:
    return int(f"{datetime.now(UTC) - timedelta(hours=12):%Y%m%d}")


def _table(found: "list[BadExposure]") -> str:
    lines = [f"{'id':>5}  {'exposure':24}{'since (UTC)':18}{'by':22}  reason"]
    for one in found[:MAX_SHOWN]:
        rule = f"rule {one.rule}: " if one.rule is not None else ""
        lines.append(f"{one.id:>5}  {one.name:24}{one.created_at:%Y-%m-%d %H:%M}  {one.author:22}  {rule}{one.reason}")
        if one.ended_at is not None:
            why = f": {one.end_reason}" if one.end_reason else ""
            lines.append(f"{'':7}included again by {one.ended_by} at {one.ended_at:%Y-%m-%d %H:%M}{why}")
    if len(found) > MAX_SHOWN:
        lines.append(f"  ... {len(found) - MAX_SHOWN} more (all of them: --json)")
    return "\n".join(lines)


def _show(found: "list[BadExposure]", *, as_json: bool) -> None:
    if as_json:
        print_json([one.model_dump(mode="json") for one in found])
    else:
        print(_table(found) if found else "no exposure is excluded")


def exposure(
    exposures: Annotated[list[str], typer.Argument(help="Exposure ids, or ranges FIRST-LAST.")],
    reason: Reason,
    detector: Annotated[list[str] | None, typer.Option(help="Only this detector or raft; may be repeated.")] = None,
    camera: CameraName = None,
    redis: Redis = None,
    data: Data = None,
    as_json: AsJson = False,
) -> None:
    """Build nothing from exposures. Example: rapid exclude exposure 2026112000012 --reason 'shutter stuck'"""
    from rapid.cli.exclude import open_desk, whoami
    from rapid.exclusions.bad_exposures import BadExposureStore
    from rapid.exclusions.decide import parse_targets
    from rapid.requests.reading import read_spec

    listed = read_spec({"select": {"exposures": exposures}}).select.listed()
    desk = open_desk(camera, redis, data)
    made = BadExposureStore(desk.store.engine).exclude(
        desk.camera.name,
        listed,
        targets=parse_targets(detector, desk.camera) if detector else [],
        reason=reason,
        author=whoami(),
        now=desk.now,
    )
    desk.announce("exposures excluded", [one.name for one in made])
    _show(made, as_json=as_json)


def list_exposures(
    with_history: Annotated[bool, typer.Option("--all", help="Also what was undone.")] = False,
    day_obs: Annotated[int | None, typer.Option(help="Only of this observing day.")] = None,
    camera: CameraName = None,
    redis: Redis = None,
    data: Data = None,
    as_json: AsJson = False,
) -> None:
    """List exposures that nothing is built from. Example: rapid exclude exposures --day-obs 20261120"""
    from rapid.cli.exclude import open_desk
    from rapid.exclusions.bad_exposures import BadExposureStore

    desk = open_desk(camera, redis, data)
    store = BadExposureStore(desk.store.engine)
    _show(store.listed(desk.camera.name, day_obs=day_obs, with_history=with_history, limit=100_000), as_json=as_json)


def include(
    numbers: Annotated[list[int], typer.Argument(help="Numbers from `rapid exclude exposures`.")],
    reason: Annotated[str, typer.Option(help="Why; for the history.")] = "",
    camera: CameraName = None,
    redis: Redis = None,
    data: Data = None,
    as_json: AsJson = False,
) -> None:
    """Build from exposures again. Example: rapid exclude include 7 --reason 'it was the wrong one'"""
    from rapid.cli.exclude import open_desk, whoami
    from rapid.exclusions.bad_exposures import BadExposureStore

    desk = open_desk(camera, redis, data)
    store, undone = BadExposureStore(desk.store.engine), list["BadExposure"]()
    try:
        for number in numbers:
            undone.append(store.undo(desk.camera.name, number, by=whoami(), now=desk.now, reason=reason))
    finally:
        if undone:
            desk.announce("exposures included", [one.name for one in undone])
    _show(undone, as_json=as_json)


@rule_app.command("add")
def add_rule(
    expression: Annotated[str, typer.Argument(help="bias_mean_adu > 5 and detector in R22")],
    reason: Reason,
    first_day: FirstDay = None,
    last_day: LastDay = None,
    preview: Annotated[bool, typer.Option("--preview", help="Only show what it would find.")] = False,
    camera: CameraName = None,
    redis: Redis = None,
    data: Data = None,
    as_json: AsJson = False,
) -> None:
    """Make a rule. Example: rapid exclude rule add 'read_noise_max_electron > 15 and image_type == bias' --reason 'noisy'"""
    from rapid.cli.exclude import open_desk, whoami
    from rapid.exclusions.rule_store import RuleStore

    desk = open_desk(camera, redis, data)
    store, first = RuleStore(desk.store.engine), first_day or _today()
    if preview:
        found = store.preview(desk.camera.name, expression, first_day=first, last_day=last_day)
        if as_json:
            print_json(
                [
                    {"exposure": one.exposure, "detector": one.detector_name, "found": str(finding)}
                    for one, finding in found
                ]
            )
            return
        for one, finding in found[:MAX_SHOWN]:
            print(f"{one.exposure}/{one.detector_name}  {finding}")
        print(f"it would exclude {len(found)} detectors of exposures")
        return
    rule, made = store.add(
        desk.camera.name,
        expression,
        reason=reason,
        author=whoami(),
        first_day=first,
        last_day=last_day,
        now=desk.now,
    )
    desk.announce("rule made", [one.name for one in made])
    if as_json:
        print_json({"rule": rule.model_dump(mode="json"), "excluded": [one.model_dump(mode="json") for one in made]})
        return
    print(f"rule {rule.id}: {rule.expression}")
    _show(made, as_json=False)


@rule_app.command("list")
def list_rules(
    with_history: Annotated[bool, typer.Option("--all", help="Also those that were ended.")] = False,
    camera: CameraName = None,
    redis: Redis = None,
    data: Data = None,
    as_json: AsJson = False,
) -> None:
    """List rules. Example: rapid exclude rule list --all"""
    from rapid.cli.exclude import open_desk
    from rapid.exclusions.rule_store import RuleStore

    desk = open_desk(camera, redis, data)
    found = RuleStore(desk.store.engine).listed(desk.camera.name, with_history=with_history)
    if as_json:
        print_json([one.model_dump(mode="json") for one in found])
        return
    for one in found:
        print(_rule_line(one))
    if not found:
        print("there are no rules")


def _rule_line(one: "ExclusionRule") -> str:
    ended = f"  ended by {one.ended_by}" if one.ended_at is not None else ""
    days = f"{one.first_day}-{one.last_day or ''}"
    return f"{one.id:>5}  {days:18} {one.expression}  ({one.reason}; {one.author}){ended}"


@rule_app.command("end")
def end_rule(
    number: Annotated[int, typer.Argument(help="Number from `rapid exclude rule list`.")],
    undo: Annotated[bool, typer.Option("--undo", help="Build again from what it has found.")] = False,
    reason: Annotated[str, typer.Option(help="Why; for the history.")] = "",
    camera: CameraName = None,
    redis: Redis = None,
    data: Data = None,
    as_json: AsJson = False,
) -> None:
    """End a rule. Example: rapid exclude rule end 3 --undo --reason 'limit was too tight'"""
    from rapid.cli.exclude import open_desk, whoami
    from rapid.exclusions.rule_store import RuleStore

    desk = open_desk(camera, redis, data)
    ended = RuleStore(desk.store.engine).end(
        desk.camera.name, number, by=whoami(), now=desk.now, reason=reason, undo=undo
    )
    desk.announce("rule ended", [str(number)])
    print_json(ended.model_dump(mode="json")) if as_json else print(_rule_line(ended))


def register(group: typer.Typer) -> None:
    """Add the commands to `rapid exclude`."""
    group.command("exposure")(exposure)
    group.command("exposures")(list_exposures)
    group.command("include")(include)
    group.add_typer(rule_app, name="rule")
