"""Stores on real databases and servers."""

from pathlib import Path

import pytest

from rapid.results.store import open_results
from tests.support.postgres import serve_postgres
from tests.support.s3 import serve_s3


@pytest.fixture(scope="session")
def postgres_url():
    with serve_postgres() as url:
        yield url


@pytest.fixture(scope="session")
def s3_server():
    with serve_s3() as server:
        yield server


@pytest.fixture(params=["sqlite", "postgresql"])
def results_url(request, tmp_path: Path):
    """An empty database of each kind."""
    if request.param == "sqlite":
        return str(tmp_path / "results.sqlite")
    import psycopg

    base = request.getfixturevalue("postgres_url")
    name = f"t{abs(hash(request.node.nodeid)):x}"
    with psycopg.connect(base, autocommit=True) as connection:
        connection.execute(f'CREATE DATABASE "{name}"')
    return base.replace("/postgres?", f"/{name}?")


@pytest.fixture
def results(results_url):
    store = open_results(results_url)
    yield store
    store.close()
