"""Stores with something in them, and servers that RubinTV and ConsDB would be."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from rapid.products.directory import DirectoryStore
from rapid.results.store import ResultsStore, open_results
from tests.support.s3 import S3Server, serve_s3


@pytest.fixture
def results(tmp_path: Path) -> Iterator[ResultsStore]:
    store = open_results(str(tmp_path / "results.sqlite"))
    yield store
    store.close()


@pytest.fixture
def products(tmp_path: Path) -> DirectoryStore:
    return DirectoryStore(tmp_path / "products")


@pytest.fixture(scope="module")
def s3() -> Iterator[S3Server]:
    with serve_s3() as server:
        yield server
