"""One rank of a large plan in one process: what it sends and holds, and how long it computes."""
