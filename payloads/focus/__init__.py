"""Is the telescope in focus, and what is wrong with the wavefront: sweeps, donuts, Zernikes."""
