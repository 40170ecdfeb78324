"""Re-identification from exported graphs, without torch."""
