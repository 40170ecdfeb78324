"""A component of every kind, written as a stranger to the core would."""
