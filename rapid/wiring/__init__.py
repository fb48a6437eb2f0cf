"""Wiring: build each role from its settings. The one place that knows every class."""
