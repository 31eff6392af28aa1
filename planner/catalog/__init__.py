"""Models, devices, clusters, runtimes, calibrations and runs, each number with its source."""
