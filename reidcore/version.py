"""The version of reidcore, in a module of its own so that every room may name it."""

__version__ = "1.0.0"
