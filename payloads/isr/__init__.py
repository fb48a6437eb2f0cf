"""Instrument signature removal: from amp counts to a calibrated image."""
