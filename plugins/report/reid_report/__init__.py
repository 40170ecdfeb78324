"""The page of `reid report` as a plugin of reidcore."""
