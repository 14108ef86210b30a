"""Applications that read rulesets: the client's own state of what is served, fed as the stream feeds it."""

import msgspec

from rollout.delivery.hub import Hub
from rollout_client.evaluation import lines
from rollout_client.evaluation.context import Context
from rollout_client.evaluation.evaluate import Evaluation, evaluate
from rollout_client.evaluation.ruleset import Patch
from rollout_client.report import Reporter
from rollout_client.served import Served
from tests.shell.engine.machine.ground import Clock


class Reader:
    """One process of an application: `Served`, and the tag of the ruleset that it holds."""

    def __init__(self, environment: str, clock: Clock) -> None:
        self.environment = environment
        self.connected = True
        self.tag = ""
        self.served = Served(environment, frozenset(), lambda: clock.monotonic, Reporter())
        self._clock = clock

    def follow(self, hub: Hub) -> None:
        """Take over the newest ruleset, by a patch where the hub has one, and how old the last protect pass is."""
        newest = hub.newest(self.environment)
        assert newest is not None
        age = hub.engine_age_ms()
        if newest.tag == self.tag:
            self.served.vouch(age)
            return
        patch = hub.patch(self.environment, self.tag)
        compiled = None if patch is None else self.served.patched(msgspec.json.decode(patch, type=Patch))
        if compiled is None:
            assert self.served.adopt(lines.decode(newest.body), "service", age), "a published ruleset can be served"
        else:
            self.served.take(compiled, "service", age, self._clock.monotonic)
        self.tag = newest.tag

    def ask(self, flag: str, context: Context) -> Evaluation:
        """What the application gets now."""
        self.served.look()
        current = self.served.current
        assert current is not None
        return evaluate(current.compiled, flag, context, current.lapsed, int(self._clock.now.timestamp()) // 60)
