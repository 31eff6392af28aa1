"""Users' own transformers modules under a plan."""
