"""Publishing: RubinTV, ConsDB, cluster status."""
