"""Ranks as processes: how they start, find and watch each other, and end."""
