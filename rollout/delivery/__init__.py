"""What is served and how it reaches clients: publishing a revision, the newest one in memory, the stream of changes.

For: `publish` (inside the transaction of the change), `hub` (after it).
May import: `rollout.db`, `rollout.domain`, `rollout_client.evaluation`.
Never: decides what is served, or sends anything that is not committed.
"""
