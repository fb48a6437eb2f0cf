"""Cameras as data: detectors, rafts, amps, geometry."""
