"""IPAD (Instance and Pair-Aware Dynamic Networks, arXiv 2103.05395) as a plugin of reidcore."""
