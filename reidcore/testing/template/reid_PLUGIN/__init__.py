"""The plugin `PLUGIN` of reidcore."""
