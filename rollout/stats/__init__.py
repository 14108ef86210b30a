"""Numbers in, numbers out: the tests that stay valid however often one looks.

What it is for: e-processes for harm and for advance, sample-ratio mismatch, the design effect of sticky
units, planning and simulation. Everything returns natural logarithms of e-values ("log e"); a null
hypothesis is rejected at level alpha when log e >= log(1 / alpha), at any number of looks (Ville's
inequality).

What it may import: the standard library, numpy, scipy.

What it never does: no input or output, no clock, no logging, no random source of its own (a generator is an
argument), and it knows no flag, rollout, plan or database.
"""
