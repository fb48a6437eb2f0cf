"""Exclusions on each kind of database."""

from pathlib import Path

import pytest

from rapid.exclusions.store import ExclusionStore
from rapid.results.store import open_results
from tests.support.postgres import serve_postgres


@pytest.fixture(scope="session")
def postgres_url():
    with serve_postgres() as url:
        yield url


@pytest.fixture(params=["sqlite", "postgresql"])
def store(request, tmp_path: Path):
    if request.param == "sqlite":
        url = str(tmp_path / "results.sqlite")
    else:
        import psycopg

        url = request.getfixturevalue("postgres_url")
        with psycopg.connect(url, autocommit=True) as connection:
            connection.execute("DROP SCHEMA public CASCADE")
            connection.execute("CREATE SCHEMA public")
    results = open_results(url)
    yield ExclusionStore(results.engine)
    results.close()
