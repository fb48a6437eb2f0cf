"""`rapid replay …`: the commands."""
