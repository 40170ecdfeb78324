"""QAConv and TLift (Liao and Shao, ECCV 2020) as a plugin of reidcore."""
