"""Where ranks share cores: every row costed, the best of them replayed."""
