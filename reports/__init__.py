"""Reports compare, validate and show; they never import torch."""
