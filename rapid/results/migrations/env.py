"""Run migrations on the connection that `rapid.results.store` hands over."""

from alembic import context

from rapid.results import log_schema, trend_schema
from rapid.results.schema import metadata

ALL_TABLES = (
    log_schema.night_log,
    trend_schema.trend_values,
)  # modules that add tables to the same metadata have to be imported

connection = context.config.attributes["connection"]
context.configure(connection=connection, target_metadata=metadata)
with context.begin_transaction():
    context.run_migrations()
