"""The cluster as it works: who does what, what waits, what failed, how long things take; and orders to mend it."""
