"""The command `rollout`: serves, and talks to a service over HTTP like everybody else.

For: `serve`, and `apply`, `status`, `kill`, `restore`, `keys` for people and for CI.
May import: `rollout.app`, `rollout.settings`, `rollout.domain` (to read documents), httpx, typer.
Never: opens the database itself, or does what the HTTP interface cannot do.
"""
