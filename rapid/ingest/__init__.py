"""The ingest role: every raw that arrives, and files that are no images, into a Butler repository."""
