"""A board in plain Python, slow and obvious: what the real one must agree with.

Times are seconds; a step of the real clock (milliseconds) never matters, because all waits differ by whole seconds.
"""

from dataclasses import dataclass, field

LEASE_S = 10
WORKER_S = 3 * LEASE_S
GATHER_S, REGATHER_S, DEADLINE_S = 5, 45, 120
BACKLOG_S, TTL_S = 12 * 3600, 60 * 3600
MAX_ATTEMPTS = 3
GATHER_LEASE_S = 60
NEWEST_S = 3600


@dataclass
class Slot:
    """One detector of one batch."""

    state: str = "waiting"
    attempts: int = 0
    worker: str | None = None
    token: int = 0
    until: float = 0
    """End of the lease, or of the wait before a retry."""

    is_delivered: bool = False


@dataclass
class Batch:
    """One posted exposure."""

    seq_num: int
    posted: float
    touched: float
    aged: float = 0
    slots: dict[int, Slot] = field(default_factory=dict)
    version: int = 0
    gathered: frozenset[int] = frozenset()
    gathering: tuple[int, float, frozenset[int]] | None = None
    first: float | None = None
    regather: float | None = None

    @property
    def finished(self) -> frozenset[int]:
        return frozenset(d for d, slot in self.slots.items() if slot.state == "finished")

    @property
    def is_complete(self) -> bool:
        return all(slot.state in {"finished", "failed", "excluded", "superseded"} for slot in self.slots.values())


class Model:
    """The whole board."""

    def __init__(self) -> None:
        self.now = 0.0
        self.batches: dict[int, Batch] = {}
        self.seen: dict[str, float] = {}
        self.parked: set[str] = set()
        self.letters: set[tuple[int, int]] = set()
        self.mode = "consuming"
        self.newest = (0, 0.0)
        """Newest exposure posted, and until when that counts."""

    # What is where

    def slots(self, state: str) -> list[tuple[int, int]]:
        return [(b.seq_num, d) for b in self.batches.values() for d, slot in b.slots.items() if slot.state == state]

    def eligible(self) -> list[tuple[int, int]]:
        """What a free worker may take now: in mode waiting, current jobs only."""
        queued = self.slots("queued")
        if self.mode != "waiting":
            return queued
        newest = self.newest[0] if self.now < self.newest[1] else 0
        return [place for place in queued if place[0] >= newest]

    def slot(self, place: tuple[int, int]) -> Slot:
        return self.batches[place[0]].slots[place[1]]

    def held_by(self, worker: str) -> set[tuple[int, int]]:
        return {place for place in self.slots("running") if self.slot(place).worker == worker}

    # Head

    def post(self, seq_num: int, expected: set[int], arrived: set[int]) -> None:
        newest = self.newest[0] if self.now < self.newest[1] else 0
        if seq_num not in self.batches and seq_num >= newest:
            self.newest = (seq_num, self.now + NEWEST_S)
        batch = self.batches.setdefault(seq_num, Batch(seq_num, self.now, self.now))
        batch.touched = self.now
        for detector in expected:
            batch.slots.setdefault(detector, Slot())
        self.arrive(seq_num, arrived)
        self.note_change(batch)

    def arrive(self, seq_num: int, arrived: set[int]) -> None:
        batch = self.batches[seq_num]
        batch.touched = self.now
        for detector in arrived & set(batch.slots):
            if batch.slots[detector].state == "waiting":
                batch.slots[detector].state = "queued"
                batch.aged = self.now

    def exclude(self, seq_num: int, detectors: set[int]) -> None:
        batch = self.batches[seq_num]
        batch.touched = self.now
        for detector in detectors & set(batch.slots):
            if batch.slots[detector].state in {"waiting", "queued", "retry"}:
                batch.slots[detector].state = "excluded"
        self.note_change(batch)

    # Workers

    def take(self, place: tuple[int, int], worker: str, token: int, *, is_delivered: bool) -> None:
        slot = self.slot(place)
        assert slot.state == "queued", f"{place} was {slot.state} when it was given away"
        slot.state, slot.worker, slot.token = "running", worker, token
        slot.attempts += 1
        slot.until = self.now + LEASE_S
        slot.is_delivered = is_delivered
        self.parked.discard(worker)

    def finish(self, place: tuple[int, int]) -> None:
        self.slot(place).state = "finished"
        self.note_result(place[0])

    def give_back(self, place: tuple[int, int], how: str, *, retry_after: float = 0) -> str:
        slot = self.slot(place)
        if how == "free":
            slot.attempts -= 1
        if how == "last" or (how == "counted" and slot.attempts >= MAX_ATTEMPTS):
            slot.state = "failed"
            self.letters.add(place)
            self.note_result(place[0])
            return "dead"
        slot.state = "retry" if retry_after else "queued"
        slot.until = self.now + retry_after
        return "queued"

    # Gathers

    def note_result(self, seq_num: int) -> None:
        batch = self.batches[seq_num]
        if batch.first is None:
            batch.first = batch.touched = self.now
        self.note_change(batch)

    def note_change(self, batch: Batch) -> None:
        if batch.gathering or not batch.version or batch.finished == batch.gathered:
            return
        if batch.regather is None:
            due = (self.now if batch.first is None else batch.first) + REGATHER_S
            batch.regather = due if due > self.now else self.now + REGATHER_S

    def is_gather_due(self, batch: Batch) -> bool:
        if batch.gathering:
            return False
        if batch.version == 0:
            first = DEADLINE_S * 2 if batch.first is None else batch.first - batch.posted + GATHER_S
            return batch.is_complete or self.now - batch.posted >= min(first, DEADLINE_S)
        if batch.finished == batch.gathered:
            return False
        awaits_more = any(slot.state == "superseded" for slot in batch.slots.values())
        return (batch.is_complete and not awaits_more) or (batch.regather is not None and self.now >= batch.regather)

    def due_gathers(self) -> list[int]:
        return sorted(seq_num for seq_num, batch in self.batches.items() if self.is_gather_due(batch))

    # Time

    def expire(self) -> None:
        for place in self.slots("running"):
            slot = self.slot(place)
            if slot.until <= self.now:
                self.give_back(place, "counted" if slot.is_delivered else "free")
        for place in self.slots("retry"):
            if self.slot(place).until <= self.now:
                self.slot(place).state = "queued"
        for worker, seen in list(self.seen.items()):
            if seen + WORKER_S <= self.now:
                del self.seen[worker]
                self.parked.discard(worker)
        for batch in list(self.batches.values()):
            if batch.gathering and batch.gathering[1] <= self.now:
                batch.gathering = None
                self.note_change(batch)
            if batch.aged + BACKLOG_S <= self.now:
                for slot in batch.slots.values():
                    if slot.state in {"queued", "retry"}:
                        slot.state = "superseded"
                self.note_change(batch)
            if batch.touched + TTL_S <= self.now:
                del self.batches[batch.seq_num]
