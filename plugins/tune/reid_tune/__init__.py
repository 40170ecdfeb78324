"""The search for settings of `reid tune` as a plugin of reidcore."""
