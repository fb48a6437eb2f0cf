"""Sizes, comparisons and plans: decisions on given facts."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rapid.cluster.compare import Row, compare_versions
from rapid.cluster.costs import costs_of
from rapid.cluster.elastic import Controller, Facts, SizePolicy, Sizer
from rapid.cluster.models import Group, GroupKind, Pod
from rapid.cluster.plan import Costs, Demand, Nodes, last_done, plan_cluster, simulate_latency, with_measured
from rapid.cluster.rollout import canary_of
from rapid.cluster.status import join_status
from rapid.dispatch.models import BoardStatus, WorkerMode, WorkerState
from rapid.errors import ConfigurationError, StoreError
from rapid.patterns.placement import pinned_detectors
from rapid.wiring.camera import adopt_camera
from rapid.wiring.elastic import read_policies

POLICY = SizePolicy(group="g", pools=("science",), least=2, most=20, drain_s=100.0, largest_step=6, calm=3)


def facts(backlog=0, current=0, workers=4, job_s=1.0, cadence_s=None):
    return Facts(backlog, current, workers, job_s, cadence_s)


def test_a_backlog_makes_a_group_grow_in_steps_within_bounds():
    sizer = Sizer(POLICY)
    sizes, now = [], 2
    for _ in range(5):
        now = sizer.decide(now, facts(backlog=5000)).size
        sizes.append(now)
    assert sizes == [8, 14, 20, 20, 20]


def test_a_group_shrinks_only_after_calm_and_by_halves():
    sizer = Sizer(POLICY)
    now, sizes = 18, []
    for _ in range(12):
        now = sizer.decide(now, facts()).size
        sizes.append(now)
    assert sizes == [18, 18, 10, 10, 10, 6, 6, 6, 4, 4, 4, 3]


def test_a_burst_between_keeps_the_size():
    sizer = Sizer(POLICY)
    for _ in range(2):
        assert sizer.decide(10, facts()).size == 10
    assert sizer.decide(10, facts(backlog=1000)).size == 10
    for _ in range(2):
        assert sizer.decide(10, facts()).size == 10


def test_a_late_exposure_wants_what_the_others_cannot_do():
    decision = Sizer(POLICY).decide(2, facts(current=189, workers=6, job_s=1.0, cadence_s=30.0))
    # 189 jobs of 1 s within 0.8 x 30 s need 8 workers; 4 others are there.
    assert (decision.now, decision.size) == (2, 4)
    assert "cadence of 30.0 s" in decision.why


def test_without_knowledge_nothing_changes():
    assert not Sizer(POLICY).decide(5, facts(backlog=9, job_s=None)).is_change
    assert Sizer(POLICY).decide(2, Facts(9, 0, 0, None, None)).size == 2
    assert Sizer(POLICY.model_copy(update={"least": 0})).decide(0, Facts(9, 0, 0, None, None)).size == 1


@given(
    st.lists(
        st.tuples(
            st.integers(0, 100_000), st.integers(0, 500), st.integers(0, 60), st.floats(0.01, 100), st.floats(1, 100)
        ),
        max_size=30,
    ),
    st.integers(0, 60),
)
def test_a_size_never_leaves_its_bounds_and_never_jumps(steps, now):
    sizer = Sizer(POLICY)
    for backlog, current, workers, job_s, cadence_s in steps:
        size = sizer.decide(now, Facts(backlog, current, workers, job_s, cadence_s)).size
        assert size <= max(now + POLICY.largest_step, POLICY.least)
        if size != now:
            assert size <= POLICY.most
            assert size >= min(now, POLICY.least)
        now = size


def test_a_controller_does_nothing_dry_or_without_the_board():
    done: list[tuple[str, int]] = []
    dry = Controller(
        [Sizer(POLICY)], lambda _: facts(backlog=5000), lambda _: 2, lambda *a: done.append(a), is_dry=True
    )
    assert dry.step()[0][0].size == 8
    assert not done

    def away(_policy):
        raise StoreError("the board is away")

    decisions, faults = Controller([Sizer(POLICY)], away, lambda _: 2, lambda *a: done.append(a)).step()
    assert (decisions, [fault.message for fault in faults]) == ([], ["the board is away"])
    assert not done


def test_a_group_that_is_missing_does_not_keep_the_others_from_their_size():
    done: list[tuple[str, int]] = []

    def size_of(group: str) -> int:
        if group == "gone":
            raise StoreError("no such group")
        return 2

    policies = [POLICY.model_copy(update={"group": name}) for name in ("gone", "there")]
    controller = Controller(
        [Sizer(one) for one in policies], lambda _: facts(backlog=5000), size_of, lambda *a: done.append(a)
    )
    decisions, faults = controller.step()
    assert done == [("there", 8)]
    assert ([one.group for one in decisions], len(faults)) == (["there"], 1)


def test_policies_are_read_and_faults_named(tmp_path):
    path = tmp_path / "p.yaml"
    path.write_text("- {group: a, pools: [science], least: 2, most: 4}\n")
    assert read_policies(path)[0].most == 4
    for text, field in (
        ("- {group: a}", "0.pools"),
        ("- {group: a, pools: [x], least: 9, most: 2}", "0"),
        ("{", "policy"),
    ):
        path.write_text(text)
        with pytest.raises(ConfigurationError) as caught:
            read_policies(path)
        assert caught.value.field == field


# A version compared with the one before


def rows(exposures, rng, *, factor=1.0, slow=1.0, canary=range(5), fails=()):
    found = []
    for exposure in exposures:
        seeing = rng.uniform(0.6, 1.2)
        for detector in range(45):
            is_new = detector in canary
            value = seeing * rng.normal(1.0, 0.01) * (1 + 0.001 * detector) * (factor if is_new else 1.0)
            run_s = None if is_new and exposure in fails else rng.lognormal(-1, 0.1) * (slow if is_new else 1.0)
            found.append(Row(exposure, detector, run_s, {"psf_fwhm_arcsec": value, "e1": rng.normal(0, 0.01)}))
    return found


def test_an_equal_version_is_found_equal():
    wrong = 0
    for seed in range(40):
        rng = np.random.default_rng(seed)
        found = compare_versions(rows(range(10), rng), rows(range(10, 15), rng), range(5))
        wrong += any("fwhm" in finding for finding in found.findings)
    assert wrong == 0


@pytest.mark.parametrize(
    ("change", "word"), [({"factor": 1.1}, "psf_fwhm"), ({"slow": 2.5}, "as long"), ({"fails": (11, 12)}, "failed")]
)
def test_a_worse_version_is_found_out(change, word):
    rng = np.random.default_rng(3)
    found = compare_versions(rows(range(10), rng), rows(range(10, 15), rng, **change), range(5))
    assert not found.is_good
    assert any(word in finding for finding in found.findings)


def test_too_few_exposures_are_no_proof():
    rng = np.random.default_rng(3)
    assert not compare_versions(rows(range(10), rng), rows(range(10, 12), rng), range(5), least_exposures=3).is_good


# Which pods are the canary


def group(replicas, pinned):
    return Group(
        name="rapid-worker-science", kind=GroupKind.STATEFUL_SET, component="worker", image="i", wanted=replicas,
        ready=replicas, updated=replicas, pinned=pinned,
    )  # fmt: skip


@pytest.mark.parametrize("replicas", [1, 5, 21, 27, 95, 189])
def test_the_canary_owns_one_whole_raft_at_the_end(replicas):
    camera = adopt_camera("LSSTCam")
    canary = canary_of(group(replicas, f"ordinal/{replicas}"), camera)
    assert set(range(180, 189)) <= canary.detectors
    shares = [pinned_detectors(f"ordinal/{replicas}", camera, f"w-{n}") for n in range(replicas)]
    assert canary.detectors == frozenset().union(*shares[replicas - canary.n_pods :])
    if canary.n_pods > 1:
        assert not set(range(180, 189)) <= frozenset().union(*shares[replicas - canary.n_pods + 1 :])


def test_a_pooled_group_has_one_canary_without_detectors():
    assert canary_of(group(4, ""), adopt_camera("LSSTCam")) == canary_of(group(4, "3,4"), adopt_camera("LSSTCam"))
    assert canary_of(group(4, ""), adopt_camera("LSSTCam")).n_pods == 1


@pytest.mark.parametrize("text", ["ordinal/0", "ordinal/x", "a,b", "ordinal/3 of nonsense", "999", "ordinal/3 of R99"])
def test_a_pinning_that_is_none_is_refused(text):
    with pytest.raises(ConfigurationError) as caught:
        pinned_detectors(text, adopt_camera("LSSTCam"), "w-1")
    assert caught.value.field in {"pinned", "pattern"}
    with pytest.raises(ConfigurationError, match="NUMBER"):
        pinned_detectors("ordinal/3", adopt_camera("LSSTCam"), "worker")


# Cluster and board side by side


def test_status_names_detectors_without_a_worker_and_workers_without_a_pod():
    def worker(name, pinned, state="parked"):
        return WorkerState(worker_id=name, state=state, seen_ms=1000, pools="science", pinned=pinned)

    board = BoardStatus(
        now_ms=3000, mode=WorkerMode.CONSUMING, running=0, delayed=0, gathers_due=0, gathers_running=0, dead_letters=0,
        workers=(worker("w-0", "0 1"), worker("w-1", "2", "silent"), worker("ghost", "3")),
    )  # fmt: skip
    pods = [Pod(name=name, component="worker", is_ready=True) for name in ("w-0", "w-1", "w-2")]
    found = join_status("ns", "cam", [], pods, board, range(5))
    assert found.unowned == (2, 4)
    assert found.strangers == ("ghost",)
    assert [row.is_odd for row in found.pods] == [False, True, True]
    assert found.pods[0].heartbeat_age_s == 2.0
    pooled = board.model_copy(update={"workers": (*board.workers, worker("any", ""))})
    assert join_status("ns", "cam", [], pods, pooled, range(5)).unowned == ()


# The planner


def test_one_worker_per_job_finishes_after_the_last_arrival_and_one_job():
    latency = simulate_latency(
        Demand(detectors=9, cadence_s=30, arrival_s=0), Costs(core_s=1.0, spread=0, fixed_s=0, gather_s=0), 9
    )
    assert latency.p99_s == pytest.approx(1.0)
    three = simulate_latency(
        Demand(detectors=9, cadence_s=30, arrival_s=0), Costs(core_s=1.0, spread=0, fixed_s=0, gather_s=0), 3
    )
    assert three.p50_s == pytest.approx(3.0)
    assert three.busy == pytest.approx(0.1)


def test_the_plan_is_the_fewest_workers_that_do():
    demand, costs = Demand(detectors=189, cadence_s=34), Costs(core_s=0.31)
    plan = plan_cluster(demand, costs, Nodes(), latency_s=6.0)
    assert plan.latency.p99_s <= 6.1
    assert plan_cluster(demand, costs, Nodes(), workers=plan.workers - 1).latency.p99_s > 5.9
    assert not plan.sheds


def test_a_lost_node_is_felt_and_too_few_workers_shed():
    demand, costs = Demand(detectors=189, cadence_s=10), Costs(core_s=1.0)
    plan = plan_cluster(demand, costs, Nodes(cores=16, memory_gb=64), workers=24)
    assert (plan.nodes, plan.lost_workers) == (2, 12)
    assert plan.after_node_failure.n_late > plan.latency.n_late
    assert plan.after_node_failure.worst_s > plan.latency.worst_s + 5.0
    assert any(line.startswith("with a node lost, 12 workers do 60% of what comes") for line in plan.advice)
    few = plan_cluster(demand, costs, Nodes(), workers=10)
    assert few.sheds
    assert any(line.startswith("shed") for line in few.advice)


def test_a_free_worker_takes_the_newest_exposure():
    arrivals, service = np.array([[0.0, 0.0], [1.0, 1.0]]), np.ones((2, 2))
    assert last_done(arrivals, service, 1, None).tolist() == [4.0, 3.0]


def test_what_a_lost_worker_had_in_hand_begins_again_after_its_lease():
    demand = Demand(detectors=2, cadence_s=100, arrival_s=2)
    costs = Costs(core_s=10.0, spread=0, fixed_s=0, gather_s=0)
    found = simulate_latency(demand, costs, 2, n_exposures=2, lost_workers=1, nodes=Nodes(lease_s=10, failover_s=500))
    assert found.worst_s == pytest.approx(22.0), (
        "lost 2 s after the first raw, queued again 10 s later, done by the other"
    )
    gone = simulate_latency(demand, costs, 2, n_exposures=2, lost_workers=2, nodes=Nodes(lease_s=10, failover_s=500))
    assert gone.worst_s == pytest.approx(512.0)
    assert gone.n_late == 1


@pytest.mark.parametrize(
    ("demand", "nodes", "said"),
    [
        (Demand(detectors=9, cadence_s=1, arrival_s=2), Nodes(), "whatever the workers"),
        (Demand(detectors=9, cadence_s=30), Nodes(), "all workers are on one node"),
    ],
    ids=["raws arrive too slowly", "one node"],
)
def test_the_plan_says_what_no_number_of_workers_helps_against(demand, nodes, said):
    assert any(said in line for line in plan_cluster(demand, Costs(core_s=0.3), nodes, workers=9).advice)


def test_a_node_too_small_for_a_worker_is_refused():
    with pytest.raises(ConfigurationError, match="a worker wants 1 core and"):
        plan_cluster(Demand(detectors=9, cadence_s=30), Costs(core_s=0.3), Nodes(memory_gb=1))


def test_costs_are_not_looked_for_in_a_database_that_would_have_to_be_made(tmp_path):
    for url in (str(tmp_path / "none.sqlite"), f"sqlite:///{tmp_path}/none.sqlite"):
        with pytest.raises(ConfigurationError, match="no database at"):
            costs_of("quicklook", url, adopt_camera("LSSTComCam"))
    assert not list(tmp_path.iterdir())


def test_a_latency_that_cannot_be_had_is_said_to_be():
    plan = plan_cluster(Demand(detectors=9, cadence_s=30, arrival_s=5), Costs(core_s=3.0), Nodes(), latency_s=1.0)
    assert "cannot be had" in plan.advice[0]


def test_measured_costs_replace_those_assumed():
    jobs = [{"cpu_s": cpu, "total_s": 0.25, "worker_s": busy} for cpu, busy in ((0.2, 0.29), (0.2, 0.3), (0.22, 0.31))]
    costs = with_measured(Costs(core_s=1.0), jobs, [500.0, 510.0], source="here")
    assert costs.core_s == pytest.approx(0.2)
    assert costs.fixed_s == pytest.approx(0.1, abs=0.001)
    assert costs.memory_gb == pytest.approx(0.51, abs=0.01)
    assert with_measured(costs, [], [], source="nothing").source == "here"


def test_results_of_before_the_workers_time_was_noted_still_give_costs():
    costs = with_measured(Costs(core_s=1.0), [{"cpu_s": 0.2, "total_s": 0.25}] * 3, [], source="old")
    assert costs.fixed_s == pytest.approx(0.05)


def test_a_whole_exposure_takes_as_long_as_the_sum_of_what_its_jobs_were_measured_to_take():
    rng = np.random.default_rng(3)
    cpu = rng.lognormal(np.log(0.3), 0.3, 400)
    jobs = [{"cpu_s": one, "worker_s": one + 0.05 + rng.exponential(0.05)} for one in cpu]
    costs = with_measured(Costs(core_s=1.0), jobs, [], source="here").model_copy(update={"gather_s": 0.0})
    latency = simulate_latency(Demand(detectors=400, cadence_s=1000, arrival_s=0), costs, 4)
    assert latency.p50_s == pytest.approx(sum(job["worker_s"] for job in jobs) / 4, rel=0.03)


def test_exposures_that_are_slow_as_a_whole_widen_the_latencies_and_keep_their_mean():
    rng = np.random.default_rng(4)
    factors = rng.lognormal(0.0, 0.3, 30)
    exposures = np.repeat(np.arange(30), 100)
    jobs = [{"cpu_s": 0.3, "worker_s": 0.4 * factors[one] * rng.lognormal(0, 0.1)} for one in exposures]
    costs = with_measured(Costs(core_s=1.0, gather_s=0.0), jobs, [], source="here", exposures=exposures.tolist())
    assert costs.common == pytest.approx(np.std(np.log(factors), ddof=1), rel=0.05)
    demand = Demand(detectors=100, cadence_s=1000, arrival_s=0)
    wide = simulate_latency(demand, costs, 4, n_exposures=1000)
    assert wide.p99_s / wide.p50_s == pytest.approx(np.exp(2.33 * costs.common), rel=0.1)
    few = with_measured(costs, jobs[:200], [], source="here", exposures=exposures[:200].tolist())
    assert few.common == 0.0
    alike = [{"cpu_s": 0.3, "worker_s": 0.4 * rng.lognormal(0, 0.1)} for _ in exposures]
    assert with_measured(costs, alike, [], source="here", exposures=exposures.tolist()).common < 0.01
