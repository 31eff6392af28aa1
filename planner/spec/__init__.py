"""The words that all rooms speak, and their documents on disk."""
