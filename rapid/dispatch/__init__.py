"""The board: Redis-side state of dispatch, and the protocol head, workers and gather speak over it."""
