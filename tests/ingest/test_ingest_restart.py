"""A restart reads no header of what is in the repository already, and leaves out nothing that is not."""

import asyncio
from datetime import timedelta

import pytest

from rapid.arrival.decide import Patience
from rapid.arrival.directory import DirectorySource
from rapid.camera.store import load_camera
from rapid.ingest import archived, store
from rapid.ingest.archived import Archive
from tests.ingest.conftest import CAMERA, NAMES, RUN, Stage, exposure_id, raws_in, write_raw


class Counted(Archive):
    """An archive that notes which files it holds."""

    held: set[str]

    def holds(self, uri: str, size_bytes: int) -> bool:
        found = super().holds(uri, size_bytes)
        if found:
            self.held.add(uri)
        return found


@pytest.fixture
def make_archive(stage: Stage):
    made = []

    def make() -> Counted:
        loop = asyncio.get_running_loop()

        def told(exposure: int, kind: str) -> frozenset[int]:
            asked = stage.board.connection.run(store.get_told(stage.board.prefix, exposure, kind))
            return asyncio.run_coroutine_threadsafe(asked, loop).result(30)

        archive = Counted(str(stage.repo), load_camera("LSSTCam"), run=RUN, told=told)
        archive.held = set()
        made.append(archive)
        return archive

    yield make
    for archive in made:
        archive.close()


def watched(stage: Stage, archive: Archive) -> tuple[DirectorySource]:
    source = DirectorySource(
        stage.raws, camera=CAMERA, patience=Patience(0.1, 0.3, 1.0), sweep_s=1.0, is_done=archive.holds
    )
    return (source,)


async def test_a_restart_looks_at_what_is_new_and_at_what_was_changed_alone(stage: Stage, make_archive) -> None:
    first = await stage.start(sources=watched(stage, make_archive()))
    paths = [write_raw(stage.raws, 1, name) for name in NAMES[:6]]
    await stage.told(1, 6)
    await first.end()
    write_raw(stage.raws, 1, NAMES[0], width=60)  # written anew while nobody looked
    write_raw(stage.raws, 1, NAMES[6])
    write_raw(stage.raws, 2, NAMES[0])
    archive = make_archive()
    again = await stage.start(sources=watched(stage, archive))
    await stage.told(2, 1)
    await stage.told(1, 7)
    await stage.wait_until(lambda: again.ingester.counts["replaced"], "the changed raw")
    assert archive.held == {str(path) for path in paths[1:]}
    assert dict(again.ingester.counts) == {"ingested": 2, "replaced": 1}
    assert len(raws_in(stage.repo)) == 8


async def test_what_was_ingested_but_not_told_of_is_not_left_out(stage: Stage, make_archive) -> None:
    first = await stage.start(sources=watched(stage, make_archive()))
    write_raw(stage.raws, 1, NAMES[0])
    kept = write_raw(stage.raws, 1, NAMES[1])
    await stage.told(1, 2)
    await first.end()
    untold = CAMERA.by_name[NAMES[0]].id
    key = f"{stage.board.prefix}{store.TOLD}{exposure_id(1)}"
    await stage.board.connection.run(_forget(key, untold))
    archive = make_archive()
    await stage.start(sources=watched(stage, archive))
    assert untold in await stage.told(1, 2)
    assert archive.held == {str(kept)}


def _forget(key: str, detector: int):
    yield store.Command(("SREM", key, detector))


async def test_what_was_told_so_long_ago_that_it_is_forgotten_is_done_with(
    stage: Stage, make_archive, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = await stage.start()
    path = write_raw(stage.raws, 1, NAMES[0])
    await stage.told(1, 1)
    await first.end()
    size = path.stat().st_size
    await stage.board.connection.run(_delete(f"{stage.board.prefix}{store.TOLD}{exposure_id(1)}"))
    assert not await asyncio.to_thread(make_archive().holds, str(path), size)
    monkeypatch.setattr(archived, "TOLD_EXPIRE_S", -timedelta(days=1).total_seconds())
    archive = make_archive()
    assert await asyncio.to_thread(archive.holds, str(path), size)
    assert not await asyncio.to_thread(archive.holds, str(path), size + 1)
    assert not await asyncio.to_thread(archive.holds, f"/elsewhere/{path.name}", size)
    assert not await asyncio.to_thread(archive.holds, "/elsewhere/notes.txt", size)


def _delete(key: str):
    yield store.Command(("DEL", key))


async def test_a_repository_that_cannot_be_read_holds_nothing(tmp_path, stage: Stage) -> None:
    archive = Archive(str(tmp_path / "nowhere"), CAMERA, run=RUN, told=lambda _exposure, _kind: frozenset())
    path = write_raw(stage.raws, 1, NAMES[0])
    assert not await asyncio.to_thread(archive.holds, str(path), path.stat().st_size)
