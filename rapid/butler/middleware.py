"""Import the Butler when it is first used: it takes seconds, and is not installed everywhere."""

from typing import Any

from rapid.errors import ConfigurationError

EXTRA = "pip install 'rapid-analysis[butler]'"


def daf_butler() -> Any:
    """Return the package ``lsst.daf.butler``.

    Raises
    ------
    ConfigurationError
        Raised, saying what to install, if it is not there.
    """
    try:
        import lsst.daf.butler
    except ImportError as error:
        raise ConfigurationError("butler", f"needs the package lsst-daf-butler ({EXTRA}): {error}") from error
    return lsst.daf.butler
