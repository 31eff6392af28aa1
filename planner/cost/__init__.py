"""How long and how many bytes: operators, collectives, blocks, stages, memory."""
