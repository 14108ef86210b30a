"""Measurements of what the README claims: `python3 dev.py bench NAME` runs the module of that name in here.

With `--json` a bench prints one JSON object as its last line, with one row per claim and the peers that were
measured side by side in the same run. A bench may import anything; nothing imports a bench.
"""
