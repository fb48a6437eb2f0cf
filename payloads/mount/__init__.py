"""How the mount moved while the shutter was open."""
