"""Reid gallery: a gallery that grows, answers, forgets; kept in Lance tables."""
