"""How it plays out: an event engine that knows no Transformers, and replay on it."""
