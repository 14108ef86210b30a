"""The parts of `bench sdk`: the workload, the interpreter that everything is a multiple of, our rows, and the peers.

A peer runs in a process of its own, from a folder of its own in `.tools/peers` that its hash-locked requirements in
`peers/NAME.txt` fill, and measures the interpreter by turns with itself, so that its multiple is of the same machine at
the same moment.
"""
