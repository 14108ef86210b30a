"""The parts of `bench stats`: what is simulated, who is measured on it, and how the tables are made.

A *world* says what is true at each look. Its *stream* draws R replications of what can be seen. A *race* shows every
look to every *method* (the statistics of `rollout.stats`, the peers, the oracle) and notes when each first crosses its
line. A *cell* is one race under one seed, so any cell can be run alone, in any order, and comes out the same. A *table*
is a set of cells, the target that each must meet, and a few lines of text that say what was simulated.
"""
