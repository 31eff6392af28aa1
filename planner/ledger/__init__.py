"""What one rank of a plan sends and holds in the executor of this project, message by message."""
