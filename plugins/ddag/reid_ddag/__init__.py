"""DDAG (Ye et al., ECCV 2020) as a plugin of reidcore."""
