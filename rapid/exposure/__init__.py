"""Exposures: ids, names and headers, from the summit's words to ours."""
