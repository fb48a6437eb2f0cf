"""Science that runs in the pod: pure functions of arrays, and the thin plugin classes around them."""
