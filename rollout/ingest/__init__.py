"""From the wire to the increment log: checked, attributed, stored exactly once, acknowledged only when committed.

For: `accept` (one batch, one transaction) and `check` (pure: what is wrong with a batch).
May import: `rollout.db`, `rollout.domain`, `rollout.errors`, `rollout_client.evaluation`.
Never: judges, or drops anything silently.
"""
