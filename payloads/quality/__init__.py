"""How good is this image: sky, stars, point-spread function; and what a calibration exposure looks like."""
