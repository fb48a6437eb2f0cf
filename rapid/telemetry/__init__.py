"""Telemetry of an exposure, from an archive of the engineering facility's kind."""
