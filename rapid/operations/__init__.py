"""Orders to the cluster: start workers anew, run a failed job again or drop it, change the number of workers.

Whoever gives an order writes it down first (`store`); the leading head, or the supervisor that starts workers, carries
it out and writes what came of it. So every order is in the log with its author, and none is done by a process that may
not touch jobs: the display's Redis user cannot.
"""
