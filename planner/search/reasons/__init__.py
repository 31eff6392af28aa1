"""Why this plan: neighbours, what would change the decision, remedies."""
