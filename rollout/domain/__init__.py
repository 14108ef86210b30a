"""The rules of a rollout as pure functions of documents, evidence and a moment.

For: authored documents and what is wrong with them, the state of a rollout, verdicts, decisions, the compiled ruleset.
May import: `rollout.stats`, `rollout.errors`, `rollout_client.evaluation`, msgspec.
Never: reads a clock, a database, a setting or a random number; `now` and identifiers are arguments.
"""
