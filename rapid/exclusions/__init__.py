"""Detectors and amps that are switched off: by whom, why, and for which exposures."""
