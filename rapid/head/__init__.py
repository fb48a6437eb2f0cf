"""The head node: exposures from arrivals, and their fan-out over the board."""
