"""Migrations of the results store, run when it is opened."""
