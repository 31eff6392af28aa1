"""For one outer choice: the cut into stages and the layers that recompute."""
