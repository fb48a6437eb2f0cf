"""Results: the rows and documents that say what was found, kept in SQL."""
