"""A repository whose registry is in PostgreSQL: Debian's server, as the Butler needs its extension ``btree_gist``."""

import asyncio
import gc
import os
import shutil
import subprocess
import warnings
from pathlib import Path

import pytest

from rapid.butler.repository import RepositorySettings, open_repository
from rapid.errors import ConfigurationError
from rapid.ingest.desk import IngestDesk
from tests.ingest.conftest import CAMERA, NAMES, RUN, raws_in, write_raw

SERVERS = sorted(Path("/usr/lib/postgresql").glob("*/bin/postgres"))
USER = "postgres" if os.geteuid() == 0 else None
"""The server refuses to run as root."""


def call(*command: str) -> None:
    subprocess.run(command, check=True, capture_output=True, timeout=120, user=USER, cwd="/")


@pytest.fixture(scope="module")
def database(tmp_path_factory):
    if not SERVERS:
        pytest.skip("needs Debian's package postgresql: the wheel's server has no btree_gist")
    programs = SERVERS[-1].parent
    # Sockets have short names, and the server's user must be able to enter the folder.
    folder = Path("/tmp") / f"pg-ingest-{os.getpid()}"  # noqa: S108 - as above
    folder.mkdir(mode=0o700)
    if USER:
        shutil.chown(folder, USER)
    try:
        call(str(programs / "initdb"), "-D", f"{folder}/d", "-A", "trust", "-U", "rapid", "--no-sync", "-E", "UTF8")
        options = f"-c listen_addresses='' -c unix_socket_directories={folder} -c fsync=off"
        call(
            str(programs / "pg_ctl"),
            "-D",
            f"{folder}/d",
            "-w",
            "-t",
            "90",
            "-l",
            f"{folder}/log",
            "-o",
            options,
            "start",
        )
        try:
            psql = (str(programs / "psql"), "-h", str(folder), "-U", "rapid", "-d", "postgres", "-c")
            call(*psql, "CREATE DATABASE without")
            call(*psql, "CREATE EXTENSION btree_gist")
            yield folder, "postgresql+psycopg://rapid@/postgres?host=" + str(folder)
        finally:
            call(str(programs / "pg_ctl"), "-D", f"{folder}/d", "-m", "immediate", "-w", "-t", "60", "stop")
    finally:
        shutil.rmtree(folder, ignore_errors=True)


async def test_raws_go_into_a_repository_in_postgresql_also_by_two_processes_at_once(database, stage) -> None:
    _, url = database
    stage.repo = stage.repo.with_name("repo-in-postgres")
    where = RepositorySettings(str(stage.repo), database=url, schema="rapid_raws")
    await asyncio.to_thread(lambda: open_repository(where, CAMERA).close())
    desks = [IngestDesk(CAMERA, lambda: open_repository(where, CAMERA), run=RUN) for _ in range(2)]
    for number, desk in enumerate(desks):
        await stage.start(f"ingest.{number}", desk=desk)
    for name in NAMES[:30]:
        write_raw(stage.raws, 1, name)
    assert len(await stage.told(1, 30)) == 30

    def both_done() -> bool:
        return all(sum(process.ingester.counts.values()) == 30 for process in stage.processes)

    await stage.wait_until(both_done, "both processes have dealt with every raw")
    assert len(raws_in(stage.repo)) == 30
    assert all("set_aside" not in process.ingester.counts for process in stage.processes)


def test_a_database_without_the_extension_is_named(database, tmp_path) -> None:
    _, url = database
    where = RepositorySettings(str(tmp_path / "repo"), database=url.replace("/postgres?", "/without?"))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the Butler leaves a connection open that it cannot use
        with pytest.raises(ConfigurationError, match="btree_gist"):
            open_repository(where, CAMERA)
        gc.collect()
    assert not (tmp_path / "repo/butler.yaml").exists()


def test_a_password_does_not_belong_in_the_repositorys_configuration(tmp_path) -> None:
    where = RepositorySettings(str(tmp_path / "repo"), database="postgresql+psycopg://rapid:secret@host/db")
    with pytest.raises(ConfigurationError, match="PGPASSWORD") as found:
        open_repository(where, CAMERA)
    assert "secret" not in found.value.message
