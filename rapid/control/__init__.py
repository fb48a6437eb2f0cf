"""Control: what people tell the system to do with the next exposure."""
