"""Requests: what scripts and people ask for by hand, and the answers they wait for."""
