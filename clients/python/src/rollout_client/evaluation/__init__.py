"""The one evaluator: which variant a unit gets, and what its outcome counts for.

What it is for: the wire structs of the ruleset and of the evidence, targeting, bucketing, receipts, and
the functions that answer a flag. The client runs them in the application; the service runs the same ones
for previews, for "why did this user get that" and for the simulator. What it may import: msgspec, mmh3,
re2, semver and the pure part of the standard library. What it never does: I/O, threads, clocks, random
numbers, logging. The minute, the lapsed leases and the local kills are arguments.
"""
