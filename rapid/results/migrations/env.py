"""Run migrations on the connection that `rapid.results.store` hands over."""

from alembic import context

from rapid.results.schema import metadata

connection = context.config.attributes["connection"]
context.configure(connection=connection, target_metadata=metadata)
with context.begin_transaction():
    context.run_migrations()
