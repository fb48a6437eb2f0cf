"""Open the database of the results store, with its tables at the newest migration.

Roles that start together open it together: one of them migrates, the others wait and find it done.
"""

import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import sqlalchemy as sa
from alembic import command
from alembic.config import Config
from sqlalchemy.exc import DBAPIError, SQLAlchemyError

from rapid.errors import ConfigurationError, StoreError

BUSY_TIMEOUT_S = 30.0
"""How long a writer waits for another one before it is an error."""

BUSY_RETRY_S = 0.02
"""Between attempts where SQLite itself does not wait: a file's first switch to write-ahead logging."""

MIGRATION_LOCK = 0x7261706964
"""PostgreSQL advisory lock ("rapid" in ASCII) that serialises roles which start together."""

MIGRATIONS = Path(__file__).parent / "migrations"

NEWEST = "0009"
"""The newest migration. Known without reading the scripts, so that opening costs no more than a query."""

KNOWN = frozenset({"0001", "0002", "0003", "0004", "0005", "0006", "0007", "0008", "0009"})


def open_engine(url: str) -> sa.Engine:
    """Return an engine for a URL; see `rapid.results.store.open_results`."""
    is_sqlite = "://" not in url or url.startswith("sqlite")
    try:
        parsed = sa.make_url(url) if "://" in url else sa.URL.create("sqlite", database=str(Path(url).absolute()))
        if parsed.drivername == "postgresql":
            parsed = parsed.set(drivername="postgresql+psycopg")
        if is_sqlite and parsed.database:
            Path(parsed.database).parent.mkdir(parents=True, exist_ok=True)
        options: dict[str, Any] = (
            {"connect_args": {"timeout": BUSY_TIMEOUT_S}} if is_sqlite else {"pool_pre_ping": True}
        )
        engine = sa.create_engine(parsed, **options)
    except (SQLAlchemyError, ModuleNotFoundError) as error:
        # Not the URL itself: it may hold a password.
        raise ConfigurationError("results_url", f"names no database: {error}") from error
    except OSError as error:
        raise StoreError(f"results store: {error}") from error
    if is_sqlite:
        sa.event.listen(engine, "connect", _configure_sqlite)
    try:
        _retry_busy(lambda: _migrate(engine))
    except (SQLAlchemyError, OSError) as error:
        engine.dispose()
        raise StoreError(f"results store {engine.url!r}: {error}") from error
    return engine


def _configure_sqlite(connection: Any, _record: Any) -> None:
    cursor = connection.cursor()
    for pragma in (f"busy_timeout={int(BUSY_TIMEOUT_S * 1000)}", "journal_mode=WAL", "synchronous=NORMAL"):
        cursor.execute(f"PRAGMA {pragma}")
    cursor.close()


def _revision(engine: sa.Engine) -> str | None:
    """Return the database's migration, None if it has no tables yet."""
    with engine.connect() as connection:
        # Ask first: once the table is there it stays, whatever another role does in between.
        if not sa.inspect(connection).has_table("alembic_version"):
            return None
        return connection.execute(sa.text("SELECT version_num FROM alembic_version")).scalar()


def _migrate(engine: sa.Engine) -> None:
    revision = _revision(engine)
    if revision == NEWEST:
        return
    if revision is not None and revision not in KNOWN:
        engine.dispose()
        raise ConfigurationError("results_url", f"the database is at migration {revision}, newer than this software")
    config = Config()
    config.set_main_option("script_location", str(MIGRATIONS))
    with engine.begin() as connection:
        if engine.dialect.name == "postgresql":
            connection.execute(sa.select(sa.func.pg_advisory_xact_lock(MIGRATION_LOCK)))
        else:
            # Look and migrate are one transaction.
            connection.exec_driver_sql("BEGIN IMMEDIATE")
        config.attributes["connection"] = connection
        command.upgrade(config, "head")


def _retry_busy(action: Callable[[], None]) -> None:
    """Do an action again while another process switches the file to write-ahead logging."""
    deadline = time.monotonic() + BUSY_TIMEOUT_S
    never = threading.Event()
    while True:
        try:
            action()
        except DBAPIError as error:
            if "locked" not in str(error) or time.monotonic() > deadline:
                raise
            never.wait(BUSY_RETRY_S)
        else:
            return
