"""Focus and wavefront of a night: sweeps, donut pairs, Zernikes in the corners, and how they went through the night."""
