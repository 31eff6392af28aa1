"""Measured runs against predictions: scores, baselines, the study (docs/validation.md)."""
