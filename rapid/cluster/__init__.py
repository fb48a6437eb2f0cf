"""The same roles as pods: see them, size them, restart and replace them, plan how many are needed."""
