"""The night log: what observers say of exposures and of the night, and the report at its end.

Nothing that was written is deleted: a comment can be taken back or replaced, and stays in the history.
"""
