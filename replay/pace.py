"""How fast this machine is just now: a fixed loop, so that latencies can be compared between machines and days."""

import time

import numpy as np

ROUNDS = 5
SIZE = 200_000


def measure_loop_s(rounds: int = ROUNDS) -> float:
    """Return the median time of a loop of what payloads do: arithmetic on arrays, a sort, a little Python [s].

    About 30 ms on a core of 2024.
    """
    values = np.random.default_rng(1).standard_normal(SIZE)
    taken = []
    for _ in range(rounds):
        begin = time.perf_counter()
        work = values.copy()
        for _ in range(3):
            work = np.sqrt(np.abs(work) + 1.0) - work.mean()
        work.sort()
        total = 0
        for number in range(100_000):
            total += number & 7
        taken.append(time.perf_counter() - begin)
    return float(np.median(taken))
