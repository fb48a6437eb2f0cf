"""Verification: which calibration exposures and masters are good, by dated thresholds."""
