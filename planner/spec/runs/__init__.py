"""Measured runs: rows of a table, each as a case that the cost model can predict."""
