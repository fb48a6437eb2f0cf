"""Arrival: a raw is complete and readable, in a watched directory or a bucket."""
