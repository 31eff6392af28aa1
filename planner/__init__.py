"""The planner thinks: it never imports torch and plans 16,384 devices on a laptop."""
