"""Which plan is best: from a question to plans with their predictions and reasons."""
