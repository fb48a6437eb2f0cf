"""Rapid Analysis: whether the picture is any good, seconds after the shutter closes."""

__version__ = "0.1.0"
