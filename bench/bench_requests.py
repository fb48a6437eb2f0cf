"""How long a request takes to be accepted, and a waiter to be woken.

A head runs in a process of its own, on a Valkey that writes its append-only file and a results store in SQLite. This process is the
script that asks, the one that waits, and the worker and the gather:

* post to accepted: from the call that posts to the answer that it was accepted (checked, written down, told);
* result to waiter: from the moment the gather has told the board of the summary to the waiter's return with the answer.

Run: python bench/bench_requests.py [N]
"""

import json
import os
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from datetime import UTC, datetime
from pathlib import Path
from types import SimpleNamespace

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from rapid.client import RapidClient
from rapid.dispatch.board import Board
from rapid.dispatch.models import WorkerSpec
from rapid.dispatch.valkey import EmbeddedValkey
from rapid.gather.decide import summarise
from rapid.gather.role import event_data
from rapid.results.store import ResultsStore, open_results
from tests.support.records import make_result, make_summary

CAMERA = "LSSTCam"
DETECTOR = 94
DAY = 20261120 * 100_000


def percentiles(seconds: list[float]) -> dict[str, float]:
    cuts = statistics.quantiles(seconds, n=100, method="inclusive")
    return {
        "p50_ms": round(cuts[49] * 1e3, 2),
        "p99_ms": round(cuts[98] * 1e3, 2),
        "max_ms": round(max(seconds) * 1e3, 2),
    }


def finish(board: Board, results: ResultsStore) -> float:
    """Run the one job and gather; return when the board was told."""
    job = board.claim(WorkerSpec(worker_id="bench"), timeout_s=30.0)
    assert job is not None
    facts = {"run": job.batch.run, "exposure": job.batch.exposure_id, "pipeline": job.batch.pipeline}
    results.put_result(make_result(job.batch.exposure_id % 100_000, DETECTOR, run=facts["run"]))
    board.complete(job, {"psf_fwhm_arcsec": 0.8})
    gather = board.next_gather("bench", timeout_s=30.0)
    assert gather is not None
    summary = summarise(gather, run=gather.batch.run)
    summary.gathered_at = datetime.now(UTC)
    results.put_summary(summary)
    board.complete_gather(gather, event_data(summary))
    return time.perf_counter()


def main() -> None:
    n = int(sys.argv[1]) if len(sys.argv) > 1 else 300
    with tempfile.TemporaryDirectory() as folder, EmbeddedValkey(Path(folder) / "valkey") as valkey:
        (Path(folder) / "raws").mkdir()
        environment = dict(os.environ) | {
            "RAPID_CAMERA": CAMERA, "RAPID_REDIS_URL": valkey.url, "RAPID_DATA": f"{folder}/data", "RAPID_RAWS": f"{folder}/raws",
        }  # fmt: skip
        results = open_results(f"{folder}/data/results.sqlite")
        for seq_num in range(1, n + 11):
            results.put_result(make_result(seq_num, DETECTOR))
            results.put_summary(make_summary(seq_num))
        head = subprocess.Popen([sys.executable, "-m", "rapid", "head"], env=environment, stderr=subprocess.DEVNULL)
        accepted, woken = [], []
        try:
            with Board(valkey.url, CAMERA) as board, RapidClient(valkey.url, CAMERA) as client:
                for place in range(n + 10):
                    begin = time.perf_counter()
                    request = client.request(
                        exposures=[DAY + place + 1],
                        detectors=[DETECTOR],
                        pipeline="quicklook",
                        reuse=False,
                        accept_s=60.0,
                    )
                    heard = time.perf_counter() - begin
                    end = SimpleNamespace(at=0.0)

                    def wait(request=request, end=end) -> None:
                        assert request.wait(60.0).is_complete
                        end.at = time.perf_counter()

                    waiter = threading.Thread(target=wait)
                    waiter.start()
                    told = finish(board, results)
                    waiter.join()
                    if place >= 10:  # the first ones warm connections and caches
                        accepted.append(heard)
                        woken.append(end.at - told)
        finally:
            head.terminate()
            head.wait(30)
            results.close()
        load = os.getloadavg()[0]
        print(
            json.dumps(
                {
                    "n": n,
                    "load": round(load, 1),
                    "post_to_accepted": percentiles(accepted),
                    "result_to_waiter": percentiles(woken),
                }
            )
        )


if __name__ == "__main__":
    main()
