"""MSINet: twins contrastive search of multi-scale interaction, as a plugin of reidcore."""
