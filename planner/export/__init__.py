"""A plan as files for whoever starts its ranks."""
