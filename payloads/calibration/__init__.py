"""Gains, linearity, crosstalk and defects from raw sequences."""
