"""A graph from any nn.Module, without its memory."""
