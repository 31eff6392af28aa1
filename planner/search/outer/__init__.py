"""All outer choices: the legal space, its bounds, the best of it."""
