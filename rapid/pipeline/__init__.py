"""Pipelines: which payloads run on which images, as data."""
