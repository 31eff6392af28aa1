"""Profiles and clusters from what other tools measured."""
