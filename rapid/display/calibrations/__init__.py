"""Calibrations as a page shows them: who passed verification, which masters there are, and what they are good for."""
