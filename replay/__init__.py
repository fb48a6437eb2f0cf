"""Replay: nights simulated, recorded and played back through the real doors."""
