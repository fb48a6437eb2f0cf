"""Certified calibs: which bias, dark and flat an exposure gets."""
