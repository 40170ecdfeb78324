"""The plugin `core`: components that every paper shares. `plugin.py` lists them without torch."""
