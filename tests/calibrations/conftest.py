"""One bench for the tests of a file: exposures are taken and built once."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.calibrations.lab import Lab, make_lab


@pytest.fixture(scope="module")
def make(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[..., Lab]]:
    """Return what makes benches."""
    labs: list[Lab] = []
    with pytest.MonkeyPatch.context() as monkeypatch:

        def made(**settings: Path | int | None) -> Lab:
            lab = make_lab(tmp_path_factory.mktemp("lab"), monkeypatch, **settings)
            labs.append(lab)
            return lab

        yield made
    for lab in labs:
        lab.results.close()
        lab.worker.results.close()
