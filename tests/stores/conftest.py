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

    url = request.getfixturevalue("postgres_url")
    # A schema is dropped in milliseconds; a database for each test would be copied file by file.
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute("DROP SCHEMA public CASCADE")
        connection.execute("CREATE SCHEMA public")
    return url


@pytest.fixture
def results(results_url):
    store = open_results(results_url)
    yield store
    store.close()
