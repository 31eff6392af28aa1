"""The cost model against measured runs and profiles: fits, held-out errors, bands."""
