"""What divides a model over ranks: the mesh, its collectives, and one file per division."""
