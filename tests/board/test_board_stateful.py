"""Arbitrary interleavings on a real Valkey against a plain model; the invariants hold after every step (I1 to I5)."""

import os
from collections.abc import Iterator

import pytest
import redis
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from rapid.dispatch.board import Board
from rapid.dispatch.models import GatherJob, Job, Priority, WorkerMode
from rapid.dispatch.valkey import EmbeddedValkey
from rapid.errors import LeaseLostError, NotFoundError, RefusedError
from rapid.results.models import DetectorState
from tests.board.conftest import key_of, spec_of, worker
from tests.board.invariants import check_board
from tests.board.model import GATHER_LEASE_S, LEASE_S, NEWEST_S, Batch, Model, Slot
from tests.support.valkey import flush

WORKERS = ("w0", "w1", "w2")
DETECTORS = st.sets(st.integers(0, 4), max_size=5)
SEQ_NUMS = st.integers(1, 4)


def place_of(job: Job) -> tuple[int, int]:
    return job.batch.exposure_id % 100_000, job.detector


def make_machine(server: EmbeddedValkey) -> type[RuleBasedStateMachine]:
    class BoardMachine(RuleBasedStateMachine):
        @initialize()
        def begin(self) -> None:
            flush(server)
            self.client = redis.Redis.from_url(server.url)
            settings_of_all = {"lease_ms": LEASE_S * 1000, "grace_ms": 0}
            self.head = Board(server.url, "LSSTCam", **settings_of_all)
            self.boards = {name: Board(server.url, "LSSTCam", **settings_of_all) for name in WORKERS}
            self.head.freeze_clock()  # a slow machine must not be taken for time that passes
            self.model = Model()
            self.jobs: dict[str, list[Job]] = {}
            self.lost: list[Job] = []
            self.done: list[Job] = []
            self.gathers: list[GatherJob] = []

        def teardown(self) -> None:
            if hasattr(self, "head"):
                for board in (self.head, *self.boards.values()):
                    board.close()
                self.client.close()

        def settle_time(self) -> None:
            """Run the timers on both sides, and see what waiting workers were handed."""
            while self.head.tick() == 0:
                pass
            self.model.expire()
            self.see_handed()

        def see_handed(self) -> None:
            parked = set(self.model.parked)
            for state in self.head.workers() if parked else ():
                for job_id in state.jobs if state.worker_id in parked else ():
                    batch, _, detector = job_id.rpartition(".")
                    place = int(batch.split(".")[1]) % 100_000, int(detector)
                    self.model.take(place, state.worker_id, 0, is_delivered=False)
            if self.model.parked and self.model.mode != "waiting":
                assert not self.model.slots("queued"), "a job is queued while a worker waits"

        # Head

        @rule(seq_num=SEQ_NUMS, expected=DETECTORS, arrived=DETECTORS)
        def post(self, seq_num: int, expected: set[int], arrived: set[int]) -> None:
            self.settle_time()
            is_new = seq_num not in self.model.batches
            receipt = self.head.post(spec_of(seq_num, sorted(expected), arrived=sorted(arrived)))
            assert receipt.created == is_new
            self.model.post(seq_num, expected, arrived)
            self.see_handed()

        @rule(seq_num=SEQ_NUMS, arrived=DETECTORS)
        def arrive(self, seq_num: int, arrived: set[int]) -> None:
            self.settle_time()
            queued = self.head.arrive(key_of(seq_num), {d: f"/raws/{d}" for d in arrived})
            if seq_num not in self.model.batches:
                assert queued == -1
                return
            before = len(self.model.slots("queued"))
            self.model.arrive(seq_num, arrived)
            assert queued == len(self.model.slots("queued")) - before
            self.see_handed()

        @rule(seq_num=SEQ_NUMS, detectors=DETECTORS)
        def exclude(self, seq_num: int, detectors: set[int]) -> None:
            self.settle_time()
            reasons = dict.fromkeys(detectors, "off")
            settled = self.head.settle(key_of(seq_num), DetectorState.EXCLUDED, reasons)
            if seq_num not in self.model.batches:
                assert settled == -1
                return
            self.model.exclude(seq_num, detectors)

        # Workers

        @rule(name=st.sampled_from(WORKERS), limit=st.integers(1, 4))
        def claim(self, name: str, limit: int) -> None:
            self.settle_time()
            jobs = self.boards[name].claim_many(worker(name), limit)
            self.model.seen[name] = self.model.now
            self.hear(name, jobs, limit)
            if not jobs:
                self.model.parked.add(name)

        def hear(self, name: str, jobs: tuple[Job, ...], limit: int) -> None:
            """Compare what a worker was given with what the model would give."""
            held = self.model.held_by(name)
            if held:
                assert {place_of(job) for job in jobs} == held, "not the jobs it holds"
                for job in jobs:
                    slot = self.model.slot(place_of(job))
                    slot.token, slot.is_delivered, slot.until = job.token, True, self.model.now + LEASE_S
            elif not jobs:
                assert not self.model.eligible(), "a job is queued and was not given"
                return
            else:
                newest = max(seq_num for seq_num, _ in self.model.eligible())
                assert len(jobs) <= limit
                for job in jobs:
                    assert job.batch == key_of(newest), "I5: not the newest"
                    assert len(jobs) == 1 or job.priority is Priority.CURRENT, "backlog is given singly"
                    self.model.take(place_of(job), name, job.token, is_delivered=True)
            for job in jobs:
                assert job.attempt == self.model.slot(place_of(job)).attempts
            self.jobs[name] = list(jobs)

        def running(self, name: str) -> list[Job]:
            """The jobs a worker believes it runs, as far as it still does; lost ones are put aside."""
            kept = []
            for job in self.jobs.pop(name, []):
                place = place_of(job)
                batch = self.model.batches.get(place[0])
                slot = batch.slots.get(place[1], Slot()) if batch else Slot()
                if slot.state != "running" or slot.token != job.token:
                    self.lost.append(job)
                else:
                    kept.append(job)
            return kept

        def keep(self, name: str, jobs: list[Job]) -> None:
            if jobs:
                self.jobs[name] = jobs

        @rule(name=st.sampled_from(WORKERS), n=st.integers(1, 4), claim_limit=st.integers(0, 3), late=st.booleans())
        def complete(self, name: str, n: int, claim_limit: int, late: bool) -> None:
            self.settle_time()
            jobs = self.running(name)
            done, left = jobs[:n], jobs[n:]
            if not done:
                return
            refused = self.lost[-1:] if late else []
            results = [(job, {"n": 1.0}) for job in [*done, *refused]]
            answer = self.boards[name].complete_many(results, claim_limit=claim_limit)
            assert answer.refused == {job.job_id for job in refused} - {job.job_id for job in done}
            for job in done:
                self.model.finish(place_of(job))
            self.model.seen[name] = self.model.now
            self.done += done
            if claim_limit:
                self.hear(name, answer.following, claim_limit)
            else:
                assert not answer.following
                self.keep(name, left)

        @precondition(lambda self: self.done)
        @rule(data=st.data())
        def complete_again(self, data: st.DataObject) -> None:
            self.settle_time()
            job = data.draw(st.sampled_from(self.done))
            slot = self.model.batches.get(place_of(job)[0], Batch(0, 0, 0)).slots.get(job.detector)
            before = self.head.status().counters.get("finished", 0)
            if slot is not None and slot.token == job.token:
                assert self.head.complete(job, {"n": 2.0}) is None
            else:
                with pytest.raises(LeaseLostError):
                    self.head.complete(job, {"n": 2.0})
            assert self.head.status().counters.get("finished", 0) == before

        @precondition(lambda self: self.lost)
        @rule(data=st.data(), how=st.sampled_from(["complete", "fail", "release"]))
        def act_without_lease(self, data: st.DataObject, how: str) -> None:
            self.settle_time()
            job = data.draw(st.sampled_from(self.lost))
            act = {
                "complete": lambda: self.head.complete(job, {}),
                "fail": lambda: self.head.fail(job, {"code": "late", "retry": "later"}),
                "release": lambda: self.head.release(job),
            }[how]
            with pytest.raises(LeaseLostError):
                act()

        @rule(name=st.sampled_from(WORKERS), retry=st.sampled_from(["later", "never", "ignore"]))
        def fail(self, name: str, retry: str) -> None:
            self.settle_time()
            jobs = self.running(name)
            if not jobs:
                return
            job, *left = jobs
            self.keep(name, left)
            place = place_of(job)
            outcome = self.boards[name].fail(job, {"code": "bad", "message": "bad", "retry": retry})
            self.model.seen[name] = self.model.now
            if retry == "ignore":
                self.model.slot(place).state = "excluded"
                self.model.note_result(place[0])
                assert outcome == "settled"
            else:
                how = "counted" if retry == "later" else "last"
                wait = self.model.slot(place).attempts ** 2
                assert outcome == self.model.give_back(place, how, retry_after=wait)

        @rule(name=st.sampled_from(WORKERS), counted=st.booleans())
        def release(self, name: str, counted: bool) -> None:
            self.settle_time()
            jobs = self.running(name)
            if not jobs:
                return
            job, *left = jobs
            self.keep(name, left)
            outcome = self.boards[name].release(job, count_attempt=counted)
            self.model.seen[name] = self.model.now
            assert outcome == self.model.give_back(place_of(job), "counted" if counted else "free")
            self.see_handed()

        @rule(name=st.sampled_from(WORKERS))
        def beat(self, name: str) -> None:
            self.settle_time()
            jobs = self.running(name)
            if not jobs:
                return
            assert self.boards[name].heartbeat(name, *jobs).held == (name in self.model.seen)
            if name in self.model.seen:
                self.model.seen[name] = self.model.now
                for job in jobs:
                    self.model.slot(place_of(job)).until = self.model.now + LEASE_S
            self.jobs[name] = jobs

        @rule(data=st.data())
        def retry_letter(self, data: st.DataObject) -> None:
            self.settle_time()
            if not self.model.letters:
                with pytest.raises(NotFoundError):
                    self.head.retry_dead_letter(key_of(1).job_id(0))
                return
            place = data.draw(st.sampled_from(sorted(self.model.letters)))
            job_id = key_of(place[0]).job_id(place[1])
            if place[0] not in self.model.batches:
                with pytest.raises(RefusedError):
                    self.head.retry_dead_letter(job_id)
                return
            self.head.retry_dead_letter(job_id)
            self.model.letters.discard(place)
            batch = self.model.batches[place[0]]
            batch.touched = batch.aged = self.model.now
            slot = batch.slots[place[1]]
            assert slot.state == "failed"
            slot.state, slot.attempts = "queued", 0
            self.see_handed()

        # Gathers

        @rule()
        def next_gather(self) -> None:
            self.settle_time()
            gather = self.head.next_gather("g0", timeout_s=0, lease_ms=GATHER_LEASE_S * 1000)
            due = self.model.due_gathers()
            if gather is None:
                assert not due, f"gathers of {due} are due"
                return
            seq_num = gather.batch.exposure_id % 100_000
            assert due, f"the gather of {seq_num} is not due"
            assert seq_num == due[-1], "not the newest"
            batch = self.model.batches[seq_num]
            assert gather.finished == batch.finished
            assert gather.expected == frozenset(batch.slots)
            assert gather.version == batch.version + 1
            until = self.model.now + GATHER_LEASE_S
            batch.gathering = (gather.token, until, batch.finished)
            self.gathers.append(gather)

        @precondition(lambda self: self.gathers)
        @rule(data=st.data())
        def complete_gather(self, data: st.DataObject) -> None:
            self.settle_time()
            gather = data.draw(st.sampled_from(self.gathers))
            self.gathers.remove(gather)
            batch = self.model.batches.get(gather.batch.exposure_id % 100_000)
            if batch is None or batch.gathering is None or batch.gathering[0] != gather.token:
                with pytest.raises(LeaseLostError):
                    self.head.complete_gather(gather)
                return
            assert self.head.complete_gather(gather) == gather.version
            batch.gathered, batch.version, batch.gathering = batch.gathering[2], gather.version, None
            batch.regather = None
            batch.touched = self.model.now
            self.model.note_change(batch)

        # Control

        @rule(mode=st.sampled_from(WorkerMode))
        def change_mode(self, mode: WorkerMode) -> None:
            self.settle_time()
            assert self.head.set_mode(mode) is mode
            self.model.mode = mode.value
            self.see_handed()

        # Time and disaster

        @rule(seconds=st.sampled_from([1, 1, 6, 11, 50, 13 * 3600, 61 * 3600]))
        def pass_time(self, seconds: int) -> None:
            self.settle_time()
            self.head.advance_clock(seconds * 1000)
            self.model.now += seconds
            self.settle_time()

        @rule()
        def flush_and_repost(self) -> None:
            """I2: the server is emptied; the head posts again from the raw store and the results store."""
            now_ms = self.head.now_ms()
            flush(server)
            self.head.freeze_clock()
            self.head.advance_clock(now_ms - self.head.now_ms())
            old = self.model
            self.model = Model()  # the mode is lost too: bringing the control state back is the head's part
            self.lost += [job for jobs in self.jobs.values() for job in jobs]
            self.jobs, self.gathers, self.done = {}, [], []
            for seq_num, batch in old.batches.items():
                finished = {d: {"n": 1.0} for d in batch.finished}
                arrived = {d for d, slot in batch.slots.items() if slot.state != "waiting"}
                self.head.post(
                    spec_of(
                        seq_num,
                        sorted(batch.slots),
                        arrived=sorted(arrived),
                        finished=finished,
                        version=batch.version,
                        summary_finished=len(batch.gathered),
                    )
                )
                if seq_num >= self.model.newest[0]:
                    self.model.newest = (seq_num, NEWEST_S)
                new = Batch(seq_num, 0, 0, version=batch.version, gathered=batch.gathered)
                new.slots = {d: Slot("finished" if d in finished else "waiting") for d in batch.slots}
                new.first = 0 if finished else None
                self.model.batches[seq_num] = new
                self.model.arrive(seq_num, arrived)
                self.model.note_change(new)

        @invariant()
        def boards_agree(self) -> None:
            if not hasattr(self, "model"):
                return
            check_board(self.client)
            for seq_num, batch in self.model.batches.items():
                state = self.head.state(key_of(seq_num))
                assert state is not None
                for detector, slot in batch.slots.items():
                    expected = "queued" if slot.state == "retry" else slot.state
                    assert state.detectors[detector].state.value == expected, f"{seq_num}.{detector}"
                assert state.version == batch.version
                assert state.gathering == (batch.gathering is not None)

    return BoardMachine


@pytest.fixture
def machine(valkey: EmbeddedValkey) -> Iterator[type[RuleBasedStateMachine]]:
    yield make_machine(valkey)
    flush(valkey)


def test_the_board_does_what_the_model_does(machine: type[RuleBasedStateMachine]) -> None:
    run_state_machine_as_test(
        machine,
        settings=settings(
            max_examples=int(os.environ.get("RAPID_BOARD_EXAMPLES", "60")),
            stateful_step_count=40,
            deadline=None,
            suppress_health_check=list(HealthCheck),
            derandomize="RAPID_BOARD_EXAMPLES" not in os.environ,
            database=None,
        ),
    )
