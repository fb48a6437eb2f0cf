"""Campaigns: nights that are processed again, and what of a night has no result."""
