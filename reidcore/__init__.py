"""reidcore: a plugin framework for object re-identification."""

__version__ = "1.0.0"
