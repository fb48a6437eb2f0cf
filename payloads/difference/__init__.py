"""Subtract a template of the same sky, and find what has changed."""
