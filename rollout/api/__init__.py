"""The service's HTTP face: thin handlers over `rollout.db`, `rollout.engine`, `rollout.ingest` and `rollout.delivery`.

For: who may ask what (`auth`), what went wrong and where (`problems`), one module per noun, the SDKs' routes.
May import: `rollout.engine` and everything below it, `rollout.telemetry`, `rollout_client.evaluation`, Litestar.
Never: reads a setting or judges. A route that does not say who may ask it admits nobody (`auth.Gatekeeper`).
"""
