"""Looks and acts: claims due rollouts, judges them, records what was decided; people's acts take the same path.

For: `look` (one rollout, one transaction), `watchman` (passes over all that are due), `commands` (people), `clock`,
`hints` (between processes).
May import: `rollout.db`, `rollout.delivery`, `rollout.domain`, `rollout.errors`.
Never: decides by itself (`rollout.domain.decide` does) or keeps a truth outside the database.
"""
