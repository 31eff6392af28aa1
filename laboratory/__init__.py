"""The laboratory: a cluster with slow and fast links on one machine, to hold predictions against.

`make lab` (or `python -m laboratory`, as root on Linux) makes a network namespace per rank, joins
them by a switch whose links have a rate and a latency, measures what the planner needs there, and
runs many plans on several topologies: predicted beside measured.
"""
