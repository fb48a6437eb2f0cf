"""Templates of the sky: made of calibrated images that were kept. What they are and how they are used is in `payloads.difference`."""
