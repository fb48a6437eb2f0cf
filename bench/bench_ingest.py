"""How many raws a second go into a Butler repository, and how soon they are told of.

The role takes them as they come, in batches; the peer calls the library for one file at a time, as a loop of
``insertDimensionData`` and ``ingest`` does. Both read the same headers from the same files, into repositories of their
own, one after the other in the same run. Run: python bench/bench_ingest.py [N_DETECTORS] [N_EXPOSURES] [N_PEER]
"""

import asyncio
import json
import statistics
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from rapid.arrival.decide import Patience
from rapid.arrival.directory import DirectorySource
from rapid.butler import records
from rapid.butler.place import to_butler
from rapid.butler.repository import RepositorySettings, day_span, exposure_span, open_repository
from rapid.camera.store import load_camera
from rapid.dispatch.board import AsyncBoard
from rapid.dispatch.valkey import EmbeddedValkey
from rapid.ingest import store
from rapid.ingest.desk import IngestDesk
from rapid.ingest.look import look_at_raw
from rapid.ingest.role import Batching, Ingester
from tests.support.raws import make_raw, raw_name

CAMERA = load_camera("LSSTCam")
RUN = "LSSTCam/raw/all"
TIMEOUT_S = 600.0


def write(folder: Path, seq_num: int, names: list[str]) -> dict[int, float]:
    """Write an exposure's raws; return when each was complete, by detector [s, monotonic]."""
    done = {}
    for name in names:
        path = folder / raw_name(seq_num, name)
        temporary = path.with_name(f".{path.name}")
        temporary.write_bytes(make_raw(seq_num, *name.split("_")))
        temporary.rename(path)
        done[CAMERA.by_name[name].id] = time.monotonic()
    return done


async def ingest_by_role(root: Path, names: list[str], n_exposures: int, url: str) -> dict[str, float]:
    raws = root / "raws"
    raws.mkdir()
    where = RepositorySettings(str(root / "role"))
    async with AsyncBoard(url, "LSSTCam") as board:
        await board.load()
        source = DirectorySource(raws, camera=CAMERA, patience=Patience(0.1, 0.3, 1.0))
        desk = IngestDesk(CAMERA, lambda: open_repository(where, CAMERA), run=RUN)
        ingester = Ingester("bench", CAMERA, board, desk, repository="bench", sources=(source,), batching=Batching())
        stop = asyncio.Event()
        running = asyncio.create_task(ingester.run(stop))
        await ingester.ready.wait()
        latencies: list[float] = []
        begin = time.monotonic()
        for seq_num in range(1, n_exposures + 1):
            after = await board.connection.run(store.last_ingested_id(board.prefix))
            writing = asyncio.create_task(asyncio.to_thread(write, raws, seq_num, names))
            told: dict[int, float] = {}
            while len(told) < len(names) and time.monotonic() < begin + TIMEOUT_S:
                messages = await board.connection.run(store.follow_ingested(board.prefix, after, timeout_s=5.0))
                now = time.monotonic()
                for _, message in messages:
                    told |= {detector: now for detector in message.detectors if detector not in told}
                after = messages[-1][0] if messages else after
            done = await writing
            assert told.keys() == done.keys()
            latencies += [told[detector] - done[detector] for detector in done]
        took = time.monotonic() - begin
        stop.set()
        await running
    n = len(names) * n_exposures
    return {
        "raws": n,
        "raws_per_s": round(n / took, 1),
        "latency_median_s": round(statistics.median(latencies), 3),
        "latency_p99_s": round(sorted(latencies)[int(0.99 * len(latencies))], 3),
    }


def ingest_one_at_a_time(root: Path, names: list[str], n_peer: int) -> dict[str, float]:
    from lsst.daf.butler import DatasetRef, FileDataset

    repository = open_repository(RepositorySettings(str(root / "peer")), CAMERA)
    butler, registry = repository.butler, repository.butler.registry
    kind = repository.dataset_type("raw", ("instrument", "exposure", "detector"), "RapidRaw")
    repository.register_run(RUN)
    times = []
    for name in names[:n_peer]:
        path = root / "raws" / raw_name(1, name)
        begin = time.monotonic()
        info = look_at_raw(str(path), CAMERA)[0].info
        rows = {
            "physical_filter": records.filter_record(info),
            "day_obs": records.day_record(info) | {"timespan": day_span(info.day_obs)},
            "group": records.group_record(info),
            "exposure": records.exposure_record(info) | {"timespan": exposure_span(info)},
        }
        for element, row in rows.items():
            registry.insertDimensionData(element, row, skip_existing=True)
        data_id = registry.expandDataId(instrument="LSSTCam", exposure=info.exposure_id, detector=info.detector)
        butler.ingest(
            FileDataset(path=to_butler(str(path)), refs=[DatasetRef(kind, data_id, run=RUN)]), transfer="direct"
        )
        times.append(time.monotonic() - begin)
    repository.close()
    return {
        "raws": len(times),
        "raws_per_s": round(len(times) / sum(times), 1),
        "each_median_s": round(statistics.median(times), 4),
        "exposure_of_189_s": round(189 * statistics.median(times), 1),
    }


def main() -> None:
    n_detectors, n_exposures, n_peer = (int(text) for text in [*sys.argv[1:], *("189", "3", "60")[len(sys.argv) - 1 :]])
    names = [detector.name for detector in CAMERA.detectors if detector.purpose.value == "SCIENCE"][:n_detectors]
    with tempfile.TemporaryDirectory(prefix="rapid-bench-ingest-") as folder:
        root = Path(folder)
        with EmbeddedValkey(root / "valkey") as valkey:
            role = asyncio.run(ingest_by_role(root, names, n_exposures, valkey.url))
        peer = ingest_one_at_a_time(root, names, n_peer)
    ratio = round(role["raws_per_s"] / peer["raws_per_s"], 1)
    print(json.dumps({"role": role, "library_one_at_a_time": peer, "throughput_ratio": ratio}, indent=2))


if __name__ == "__main__":
    main()
