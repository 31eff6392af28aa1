"""In what order: actions, orders, lowering, checks."""
