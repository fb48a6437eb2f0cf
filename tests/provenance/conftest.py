"""The desk of a leading head, and a worker that looks its calibs up in the registry."""

from tests.requests.conftest import _logs, empty_results, stage, valkey

__all__ = ["_logs", "empty_results", "stage", "valkey"]
