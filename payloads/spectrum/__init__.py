"""Slitless spectra: find the trace, extract it."""
