"""The study of the planner's decisions and of what they cost (docs/planning.md)."""
