"""The parts of `bench control`: a fleet of running rollouts, looks at it, and decisions that reach clients.

Each part has `rows(quick)`. What a figure could be at best is measured in the same run: its floor stands beside it.
"""
