"""Keep what a quick look throws away: the calibrated image at full size."""
