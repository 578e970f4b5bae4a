"""Point-in-time features of every impression: the interaction tower's input and the baseline's whole input."""
