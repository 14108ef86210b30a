"""The demonstration: a real assistant, real questions and answers, real arrival times, three rollouts at once.

For: `python3 dev.py demo`, which shows the product at work, and `--check`, which proves that it worked.
May import: `rollout.stats` to design the plans and to weigh evidence as the judge does, `rollout_client` as any
application does, and `rollout` at the edge.
Never: reaches into the service. What it knows of a rollout, the public API or a client told it; `rollout.demo.build`
is the only part that reads files from outside, and it is not used at run time.
"""
