"""What is wrong with a pattern, and where in its text."""

from rapid.errors import ConfigurationError

WINDOW = 60
"""Characters of a long expression that are shown around the fault."""


class PatternError(ConfigurationError):
    """A pattern expression is malformed, or selects nothing that the camera has.

    Parameters
    ----------
    reason
        What is wrong, one sentence without a full stop.
    text
        The whole expression.
    column
        Where it is wrong: the first character is column 1.

    Attributes
    ----------
    reason, text, column
        As given.
    """

    code = "bad_pattern"

    def __init__(self, reason: str, text: str, column: int = 1) -> None:
        shown, place = _excerpt(text, column)
        pointer = f"\n    {shown}\n    {' ' * place}^" if shown.strip() else ""
        # An expression may be of any length here, as when its length is the fault; a log line may not.
        excerpt = text if len(text) <= 4 * WINDOW else shown
        super().__init__("pattern", reason, column=column, text=excerpt)
        # Without the field: who asks for a pattern puts the name of his own before it.
        self.message = f"{reason}, at column {column}{pointer}"
        self.args = (self.message,)
        self.reason = reason
        self.text = text
        self.column = column


def _excerpt(text: str, column: int) -> tuple[str, int]:
    """Return the part of an expression around a column, safe for a terminal, and the column's place in it."""
    start = max(0, min(column - 1 - WINDOW // 2, len(text) - WINDOW))
    part = text[start : start + WINDOW]
    # One plain character for one of the text, or the caret would point elsewhere.
    plain = "".join(c if " " <= c <= "~" else " " if c.isspace() else "?" for c in part)
    before, after = "..." if start else "", "..." if start + WINDOW < len(text) else ""
    return f"{before}{plain}{after}", len(before) + column - 1 - start
