"""The command `rollout`: serves, and talks to a service over HTTP like everybody else.

For: `serve`, and for people and CI `apply`, `list`, `status`, `history`, `replay`, the acts on a rollout, `kill`,
`restore`, `keys` and `audit`.
May import: `rollout.app`, `rollout.settings`, `rollout.domain`, `rollout.api.wording` to read documents, httpx, typer.
Never: opens the database itself, or does what the HTTP interface cannot do.
"""
