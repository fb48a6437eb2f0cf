"""Two nights are compared: what differs is found, what is allowed is not."""

import copy
import re
from datetime import UTC, datetime

import pytest
from typer.testing import CliRunner

from rapid.errors import ConfigurationError
from replay.check import Kind, Tolerance, Tolerances, check, load_tolerances
from replay.cli import replay_app
from replay.events import RequestEvent
from replay.pace import measure_loop_s
from replay.recording import Manifest, Recording, ResultTable, SummaryFacts, write_recording
from replay.report import render_html, render_text

E = 2026112000001


@pytest.fixture
def night():
    return Recording(
        manifest=Manifest(
            camera="LSSTCam", title="a <good> night", began_at=datetime(2026, 11, 21, tzinfo=UTC), duration_s=60, loop_s=0.03
        ),
        events=[RequestEvent(at_s=1, request_id="1-1", spec={}, ended="done")],
        results=[
            ResultTable(
                exposure=E + n,
                pipeline="quicklook",
                detectors=(94, 95),
                metrics={"psf_fwhm_arcsec": (0.8, 0.9), "n_stars": (100, 90), "band": ("r", "r"), "total_s": (1.0, 2.0)},
            )
            for n in range(3)
        ],
        summaries=[
            SummaryFacts(
                exposure=E + n,
                pipeline="quicklook",
                n_finished=2,
                n_expected=2,
                is_complete=True,
                metrics={"psf_fwhm_arcsec_median": 0.85},
                latency_s=2.0 + n,
            )
            for n in range(3)
        ],
    )  # fmt: skip


@pytest.fixture
def replayed(night):
    return copy.deepcopy(night)


def change(recording: Recording, place: int = 0, **facts):
    recording.summaries[place] = recording.summaries[place].model_copy(update=facts)


def change_metric(recording: Recording, name: str, values: tuple):
    table = recording.results[0]
    recording.results[0] = table.model_copy(update={"metrics": table.metrics | {name: values}})


def lose_detector(recording: Recording):
    table = recording.results[0]
    metrics = {name: values[:1] for name, values in table.metrics.items()}
    recording.results[0] = table.model_copy(update={"detectors": (94,), "metrics": metrics})


def slow_down(recording: Recording):
    for place in range(3):
        change(recording, place, latency_s=60.0)


def add_exposure(recording: Recording):
    recording.summaries.append(recording.summaries[0].model_copy(update={"exposure": E + 9}))


def break_promise(recording: Recording):
    recording.manifest = recording.with_manifest(invariants={"I1": ["a raw was lost"], "I4": []}).manifest


def fail_request(recording: Recording):
    recording.events = [RequestEvent(at_s=1, request_id="1-1", spec={}, ended="failed")]


def test_a_night_is_as_itself(night, replayed):
    report = check(night, replayed)
    assert report.is_good
    assert report.n_values == 3 * (2 * 3 + 1)


HARMS = [
    pytest.param(lambda r: r.summaries.pop(), Kind.MISSING_EXPOSURE, "2026112000003", id="an exposure is missing"),
    pytest.param(add_exposure, Kind.EXTRA_EXPOSURE, "2026112000010", id="an exposure is new"),
    pytest.param(lose_detector, Kind.MISSING_DETECTOR, "95", id="a detector is missing"),
    pytest.param(lambda r: r.results.pop(), Kind.MISSING_DETECTOR, "94, 95", id="all detectors are missing"),
    pytest.param(
        lambda r: change(r, is_complete=False, n_finished=1), Kind.INCOMPLETE, "1 of 2", id="a summary is partial"
    ),
    pytest.param(
        lambda r: change(r, not_finished={"failed": (94,)}), Kind.STATE, "failed: 94 instead of none", id="a state"
    ),
    pytest.param(
        lambda r: change_metric(r, "psf_fwhm_arcsec", (0.8, 0.95)), Kind.METRIC, "0.95 instead of 0.9", id="a value"
    ),
    pytest.param(
        lambda r: change_metric(r, "psf_fwhm_arcsec", (0.8, None)), Kind.MISSING_METRIC, "None", id="no value"
    ),
    pytest.param(lambda r: change_metric(r, "band", ("r", "i")), Kind.METRIC, "'i' instead of 'r'", id="a word"),
    pytest.param(
        lambda r: change(r, metrics={}), Kind.MISSING_METRIC, "psf_fwhm_arcsec_median", id="a summary's value"
    ),
    pytest.param(slow_down, Kind.LATENCY, "the budget is", id="it takes too long"),
    pytest.param(break_promise, Kind.INVARIANT, "a raw was lost", id="an invariant is broken"),
    pytest.param(fail_request, Kind.REQUEST, "failed instead of done", id="a request ends otherwise"),
]


@pytest.mark.parametrize(("harm", "kind", "words"), HARMS)
def test_what_differs_is_found(night, replayed, harm, kind, words):
    harm(replayed)
    report = check(night, replayed)
    assert kind in {finding.kind for finding in report.findings}
    assert any(words in f"{finding.where} {finding.message}" for finding in report.findings if finding.kind is kind)
    assert words in re.sub(r"\s+", " ", render_text(report))


def test_a_slow_machine_is_no_slow_system(night, replayed):
    slow_down(replayed)
    slow = replayed.with_manifest(loop_s=0.03 * 15)  # everything takes fifteen times as long there
    assert check(night, slow).is_good


def test_times_are_not_compared_and_what_is_allowed_is_no_finding(night, replayed):
    change_metric(replayed, "total_s", (50.0, 60.0))
    change_metric(replayed, "psf_fwhm_arcsec", (0.81, 0.9))
    change_metric(replayed, "n_stars", (103, 90))
    rules = Tolerances(
        metrics={"psf_*": Tolerance(rel=0.05), "psf_fwhm*": Tolerance(rel=0.02), "n_stars": Tolerance(abs=3)}
    )
    assert check(night, replayed, rules).is_good
    # The longest key that matches counts.
    assert not check(
        night, replayed, rules.model_copy(update={"metrics": {"psf_*": Tolerance(rel=1.0), "psf_fwhm*": Tolerance()}})
    ).is_good


@pytest.mark.parametrize(
    ("text", "field"),
    [
        pytest.param("metrics: {x: {rel: -1}}", "metrics.x.rel", id="negative"),
        pytest.param("metrics: {x: {relative: 1}}", "metrics.x.relative", id="no such setting"),
        pytest.param("latency: {median: 0}", "latency.median", id="no time at all"),
        pytest.param("[", "tolerances", id="no YAML"),
        pytest.param("- a", "tolerances", id="a list"),
    ],
)
def test_a_mistake_in_the_tolerances_names_the_field(tmp_path, text, field):
    (tmp_path / "t.yaml").write_text(text)
    with pytest.raises(ConfigurationError) as caught:
        load_tolerances(tmp_path / "t.yaml")
    assert caught.value.field == field


@pytest.mark.parametrize(("factor", "said"), [(1.005, ">+1<"), (1.5, ">+5e+02<")], ids=["near", "far off"])
def test_a_plot_says_how_far_a_value_is_off(night, replayed, factor, said):
    change_metric(replayed, "psf_fwhm_arcsec", (0.8 * factor, 0.9))
    assert said in render_html(check(night, replayed))


def test_tolerances_that_are_no_text_are_refused(tmp_path):
    (tmp_path / "t.yaml").write_bytes(b"\xff\xfe\x01")
    with pytest.raises(ConfigurationError, match=r"tolerances: .* is not YAML"):
        load_tolerances(tmp_path / "t.yaml")


@pytest.mark.parametrize(
    ("rules", "complaint"),
    [
        pytest.param(
            {"pipelines": ["quiklook"]}, "pipelines: nothing of quiklook is expected, but of quicklook", id="pipeline"
        ),
        pytest.param({"control": ["patern"]}, "control: no summary tells its patern, but pattern", id="control"),
    ],
)
def test_tolerances_that_ask_for_what_is_not_there_are_refused(night, replayed, rules, complaint):
    change(night, control={"pattern": "all"})
    change(replayed, control={"pattern": "all"})
    with pytest.raises(ConfigurationError, match=complaint):
        check(night, replayed, Tolerances(**rules))


def test_a_metric_that_no_result_has_is_told_of(night, replayed):
    rules = Tolerances(metrics={"n_star": Tolerance(abs=5), "psf_*": Tolerance(rel=0.1)})
    told = render_text(check(night, replayed, rules))
    assert "no metric is called n_star, as the tolerances say" in told


def test_nights_of_two_cameras_are_not_compared(night, replayed):
    with pytest.raises(ConfigurationError, match="camera"):
        check(night, replayed.with_manifest(camera="LATISS"))
    replayed.results, replayed.summaries = [], []
    with pytest.raises(ConfigurationError, match="no results"):
        check(replayed, night)


@pytest.mark.parametrize(("harm", "kind", "words"), HARMS)
def test_the_html_report_needs_nothing_else_and_escapes_what_it_is_told(night, replayed, harm, kind, words):
    harm(replayed)
    page = render_html(check(night, replayed))
    assert page.startswith("<!doctype html>")
    assert page.count("<svg") == page.count("</svg>") >= 1
    assert not re.search(r"(src|href)\s*=|https?://|<script|@import", page)
    assert "a &lt;good&gt; night" in page
    assert kind.value in page


@pytest.mark.parametrize(
    ("harm", "status"),
    [pytest.param(lambda _r: None, 0, id="well"), pytest.param(lambda r: r.summaries.pop(), 1, id="not well")],
)
def test_the_exit_status_says_how_it_is(night, replayed, tmp_path, harm, status):
    harm(replayed)
    write_recording(night, tmp_path / "a.zip")
    write_recording(replayed, tmp_path / "b.zip")
    paths = [str(tmp_path / "a.zip"), str(tmp_path / "b.zip")]
    found = CliRunner().invoke(replay_app, ["check", *paths, "--report", str(tmp_path / "r.html")])
    assert found.exit_code == status
    assert (tmp_path / "r.html").read_text().endswith("</html>")
    assert CliRunner().invoke(replay_app, ["check", *paths, "--json"]).exit_code == status
    assert CliRunner().invoke(replay_app, ["report", *paths, "--out", str(tmp_path / "s.html")]).exit_code == 0
    assert (tmp_path / "s.html").exists()


def test_what_cannot_be_compared_has_a_status_of_its_own(night, tmp_path):
    write_recording(night, tmp_path / "a.zip")
    found = CliRunner().invoke(replay_app, ["check", str(tmp_path / "a.zip"), str(tmp_path / "nowhere.zip")])
    assert found.exit_code == 2


def test_the_loop_takes_a_time():
    assert 0 < measure_loop_s(rounds=1) < 60


def test_a_request_is_known_again_however_its_numbers_are_spelt(night):
    asked = {"select": {"exposures": [E]}, "deadline_s": 3000}
    night.events = [RequestEvent(at_s=1, request_id="1-1", spec=asked, ended="cancelled")]
    found = copy.deepcopy(night)
    found.events = [RequestEvent(at_s=2, request_id="7-7", spec=asked | {"deadline_s": 3000.0}, ended="cancelled")]
    assert check(night, found).is_good
    found.events = [found.events[0].model_copy(update={"ended": "done"})]
    (finding,) = check(night, found).findings
    assert finding.kind is Kind.REQUEST


def with_request(recording, *, ticket, ended="done", **metrics):
    """Return a recording in which an image was processed again, on request."""
    found = copy.deepcopy(recording)
    asked = {"select": {"exposures": [E]}, "pipeline": "quicklook", "reuse": False}
    run = f"request-{ticket}"
    found.events = [*found.events, RequestEvent(at_s=1, request_id=ticket, spec=asked, ended=ended, run=run)]
    found.results = [*found.results, found.results[0].model_copy(update={"run": run, "metrics": metrics})]
    found.summaries = [*found.summaries, found.summaries[0].model_copy(update={"run": run})]
    return found


def test_what_a_request_gave_is_compared_though_its_run_has_another_name(night):
    n_detectors = len(night.results[0].detectors)
    before = with_request(night, ticket="1-1", sky_level=(100.0,) * n_detectors)
    assert check(before, with_request(night, ticket="7-7", sky_level=(100.0,) * n_detectors)).is_good
    brighter = with_request(night, ticket="7-7", sky_level=(100.0, *(200.0,) * (n_detectors - 1)))
    findings = check(before, brighter).findings
    assert {(one.kind, one.where.partition(" detector")[0]) for one in findings} == {
        (Kind.METRIC, f"{E} quicklook of request 1-1")
    }
    assert len(findings) == n_detectors - 1
    nothing = with_request(night, ticket="7-7", sky_level=(100.0,) * n_detectors)
    nothing.results.pop()
    assert {one.kind for one in check(before, nothing).findings} == {Kind.MISSING_DETECTOR}


def test_how_far_a_cancelled_request_came_is_not_compared(night):
    n_detectors = len(night.results[0].detectors)
    before = with_request(night, ticket="1-1", ended="cancelled", sky_level=(100.0,) * n_detectors)
    after = with_request(night, ticket="7-7", ended="cancelled", sky_level=(1.0,) * n_detectors)
    assert check(before, after).is_good


def test_numbers_of_other_pixels_are_compared_only_with_tolerances_of_the_users(night, replayed):
    change_metric(replayed, "psf_fwhm_arcsec", (2.0, 2.0))
    assert Kind.METRIC in {finding.kind for finding in check(night, replayed).findings}
    inexact = night.with_manifest(is_exact=False)
    report = check(inexact, replayed)
    assert report.is_good, report.findings
    assert not report.has_numbers
    assert "no values compared" in render_text(report)
    assert not check(inexact, replayed, Tolerances()).is_good


def test_latencies_that_cannot_be_compared_are_told_of(night, replayed):
    report = check(night.with_manifest(loop_s=None), replayed)
    assert "latencies not compared" in render_text(report)
    assert "latencies not compared" not in render_text(check(night, replayed))
