"""A generator of a job board's log with known click probabilities: `python -m tritower.simulate --out DIR`."""
