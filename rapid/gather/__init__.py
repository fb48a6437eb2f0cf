"""The gather: the focal-plane summary, at completion or timeout, and again when the stragglers arrive."""
