"""One observatory for the tests of a file: its calibs are built once."""

import pytest

from tests.truth.observatory import Observatory, make_observatory


@pytest.fixture(scope="session")
def observatory(tmp_path_factory) -> Observatory:
    with pytest.MonkeyPatch.context() as monkeypatch:
        yield make_observatory(tmp_path_factory.mktemp("camera"), monkeypatch)
