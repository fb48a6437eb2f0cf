"""What must hold on a board at any moment, read from the server itself."""

from collections import Counter

import redis

from rapid.dispatch import keys

PREFIX = keys.prefix("LSSTCam")


def _read(client: redis.Redis, name: str) -> object:
    name = PREFIX + name
    kind = client.type(name)
    if kind == b"hash":
        return {k.decode(): v.decode() for k, v in client.hgetall(name).items()}
    if kind == b"zset":
        return {k.decode(): score for k, score in client.zrange(name, 0, -1, withscores=True)}
    if kind == b"set":
        return {k.decode() for k in client.smembers(name)}
    return {}


def check_board(client: redis.Redis) -> None:
    """Check I1, I3 and I4 on the keys, and that every key is one the key table knows, of its type.

    Raises
    ------
    AssertionError
        Raised with what is wrong.
    """
    names = [name.decode().removeprefix(PREFIX) for name in client.scan_iter(match=PREFIX.replace("{", "[{]") + "*")]
    for name in names:
        spec = keys.find_key(name)
        assert spec is not None, f"key {name} is in no table"
        assert client.type(PREFIX + name).decode() == spec.type, f"{name} is not a {spec.type}"
        if spec.expiry.startswith("60 s"):
            assert client.ttl(PREFIX + name) > 0, f"{name} does not expire"
    places: Counter[str] = Counter()
    for name in names:
        if name.startswith(("queue:", "held:", "pinned:")):
            places.update(_read(client, name).keys())
    timers = _read(client, "timers")
    for timer in timers:
        if timer[0] in "LR":
            places[timer[1:]] += 1
    own = [job for name in names if name.startswith("own:") for job in _read(client, name)]
    owners = {job: owner for name in names if name.startswith("owners:") for job, owner in _read(client, name).items()}
    assert sorted(own) == sorted(owners), "own queues and owners differ"
    queued = {job for name in names if name.startswith(("queue:", "held:")) for job in _read(client, name)}
    assert set(own) <= queued, f"jobs of their own that are queued nowhere: {set(own) - queued}"
    held = {job.rpartition(".")[0] for name in names if name.startswith("held:") for job in _read(client, name)}
    assert held <= {timer[1:] for timer in timers if timer[0] == "H"}, "jobs are held for good"

    batches = [name.removeprefix("batch:") for name in names if name.startswith("batch:")]
    for batch in batches:
        _check_batch(client, batch, places, timers)
    known = set(batches)
    for job in places:
        assert job.rpartition(".")[0] in known, f"{job} outlived its batch"
    for name in names:
        if ":" in name and name.split(":")[0] in {"expected", "waiting", "unsettled", "finished", "reasons", "raws"}:
            assert name.partition(":")[2] in known, f"{name} outlived its batch"


def _check_batch(client: redis.Redis, batch: str, places: Counter[str], timers: dict[str, float]) -> None:
    expected, waiting = _read(client, f"expected:{batch}"), _read(client, f"waiting:{batch}")
    unsettled, finished = set(_read(client, f"unsettled:{batch}")), set(_read(client, f"finished:{batch}"))
    reasons, leases = _read(client, f"reasons:{batch}"), _read(client, f"leases:{batch}")
    expected, waiting = set(expected), set(waiting)
    running = {detector for detector, lease in leases.items() if lease.endswith("|held")}
    assert f"B{batch}" in timers, f"{batch} is never forgotten"
    # I4: a detector is unsettled, finished, or settled otherwise with a reason: exactly one of them.
    assert unsettled | finished | set(reasons) == expected, f"{batch}: detectors unaccounted for"
    assert not unsettled & finished, f"{batch}: finished but not settled"
    assert not unsettled & set(reasons), f"{batch}: settled with a reason, and not settled"
    # I1: what is not settled waits for its raw, runs, or is queued in exactly one place.
    for detector in unsettled:
        job = f"{batch}.{int(detector):03d}"
        if detector in waiting:
            assert places[job] == 0, f"{job} is queued without a raw"
        else:
            assert places[job] == 1, f"{job} is in {places[job]} places"
    for detector in running:
        assert f"L{batch}.{int(detector):03d}" in timers, f"{batch}.{detector} has a lease that never runs out"
    for detector in expected - unsettled - running:
        job = f"{batch}.{int(detector):03d}"
        shed = reasons.get(detector, "").startswith("superseded")
        assert places[job] <= (1 if shed else 0), f"{job} is settled and still queued"
    facts = _read(client, f"batch:{batch}")
    gathers = _read(client, "gathers")
    complete = facts["final"] == "1" and not unsettled
    if facts["version"] == "0" or (complete and len(finished) != int(facts["gathered_n"])):
        buried = client.exists(f"{PREFIX}dead:{batch}.gather")
        assert batch in gathers or facts["gathering"] == "1" or buried, f"{batch} has no gather to come"
