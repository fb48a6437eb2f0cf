"""Changes in long series of numbers: kernels that know nothing of stores."""
