"""Weights, gradients and optimiser states of a rank: whole, in shards, or by server."""
