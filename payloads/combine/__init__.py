"""Combine calibration exposures into calibs."""
