"""Alerts: said at once, to the application, to the log, to `status()` and to the service.

They travel apart from evidence, in batches of their own: an alert is an outcome, and an outcome must not decide when
evidence is sent (decision record 0001, Batch).
"""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING

import msgspec

from rollout_client import native
from rollout_client.evaluation.evidence import MOST_ALERTS, Alert, Batch, acknowledges
from rollout_client.report import Reporter, explain

if TYPE_CHECKING:
    import asyncio

    import httpx

    from rollout_client.options import Options


class Alerts:
    """The alerts of one process. `say` may be called from any thread; the rest runs where evidence is sent."""

    def __init__(
        self, options: Options, reporter: Reporter, drop: Callable[[str, int], None], wake: Callable[[], None]
    ) -> None:
        self.said = 0
        self._options = options
        self._reporter = reporter
        self._drop = drop
        self._wake = wake
        self._waiting: deque[Alert] = deque()
        self._lock = native.rlock()
        self._failures = 0

    def say(self, alert: Alert) -> None:
        """Tell everybody; an error of the application's own function is reported and goes no further."""
        with self._lock:
            self.said += 1
            self._waiting.append(alert)
            crowded = len(self._waiting) > MOST_ALERTS
            if crowded:
                self._waiting.popleft()
        if crowded:
            self._drop("alerts", 1)
        what = f"{alert.kind} {alert.flag}/{alert.variant}"
        self._reporter.news(
            f"alert {what}",
            f"{what}: the {alert.arm or 'variant'} is not called for a while, after {alert.failure} (in this process)",
        )
        self._wake()
        if self._options.on_alert is not None:
            try:
                self._options.on_alert(alert)
            except Exception as error:
                self._reporter.failed_call("on_alert", error)

    async def run(self, http: httpx.AsyncClient, woken: asyncio.Event, template: Batch) -> None:
        """Send alerts as they come; never returns."""
        import asyncio

        while True:
            await woken.wait()
            woken.clear()
            while self._waiting:
                wait = await self._send(http, template)
                await asyncio.sleep(wait)

    async def finish(self, http: httpx.AsyncClient, deadline: float, template: Batch) -> None:
        """Send what is left before `deadline` (loop time), with one try; the rest is counted."""
        import asyncio

        try:
            async with asyncio.timeout_at(deadline):
                while self._waiting and not await self._send(http, template):
                    continue
        except TimeoutError:
            pass
        if self._waiting:
            self._drop("alerts", len(self._waiting))
            self._waiting.clear()

    async def _send(self, http: httpx.AsyncClient, template: Batch) -> float:
        """Send once; return the seconds to wait before the next. Each time with a new id: news may be told twice."""
        import httpx

        from rollout_client.backoff import retry_after

        alerts = list(self._waiting)
        batch = msgspec.structs.replace(template, batch_id=os.urandom(16).hex(), alerts=alerts)
        try:
            answer = await http.post(
                "/sdk/v1/events", content=msgspec.json.encode(batch), headers={"Content-Type": "application/json"}
            )
        except httpx.HTTPError as error:
            return self._again(f"an alert cannot be sent: {explain(error)}")
        if answer.status_code == 429 or not 200 <= answer.status_code < 500:
            wait = self._again(f"an alert waits: the service answered {answer.status_code}")
            return max(wait, retry_after(answer.headers.get("Retry-After"), self._options.clock()))
        if answer.status_code >= 300:
            self._reporter.trouble("alerts-refused", f"an alert was refused with {answer.status_code}")
            self._drop("alerts", len(alerts))
        elif not acknowledges(answer.content, batch.batch_id):
            return self._again("an alert waits: the answer is no acknowledgement")
        self._failures = 0
        with self._lock:
            while self._waiting and self._waiting[0] in alerts:
                self._waiting.popleft()
        return 0.0

    def _again(self, said: str) -> float:
        from rollout_client.backoff import delay

        self._failures += 1
        self._reporter.trouble("alerts", said)
        return delay(self._failures, self._options.backoff_first, self._options.backoff_longest)
