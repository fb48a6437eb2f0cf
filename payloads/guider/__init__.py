"""Guider files: how a star moved, and how its image changed, while the shutter was open."""
