"""The models of a ModelSpec in plain torch, which do not know that they are divided."""
