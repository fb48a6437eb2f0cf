"""Campaigns on the display: what they are and how far, what has no result, and what differs from another run."""
