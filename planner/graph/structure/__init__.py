"""The shape of any graph: signatures of equal parts, layers that repeat, what runs at once."""
