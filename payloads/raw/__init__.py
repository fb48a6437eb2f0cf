"""Raw bytes to amp pixels."""
