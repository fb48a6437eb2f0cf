"""Which results and calibs a bad calib or exposure has touched, and in which order they are to be done again."""
