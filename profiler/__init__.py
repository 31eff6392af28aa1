"""The profiler measures the machine and captures the modules of users."""
