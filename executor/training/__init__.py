"""Training a task under a plan: data, metric, checkpoints, and going on after a failure."""
