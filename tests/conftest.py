"""What holds for every test."""

import os
from collections.abc import Iterator

import pytest


@pytest.fixture(scope="module", autouse=True)
def same_environment() -> Iterator[None]:
    """Fail the last test of a module that leaves the environment other than it was: later modules would run in it."""
    before = {name: value for name, value in os.environ.items() if name.startswith("RAPID_")}
    yield
    after = {name: value for name, value in os.environ.items() if name.startswith("RAPID_")}
    assert after == before, "a module must leave the environment as it found it"
