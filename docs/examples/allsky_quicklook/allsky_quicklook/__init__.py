"""An all-sky camera in Rapid Analysis: one fish-eye JPEG an exposure, no CCD mosaic at all."""
