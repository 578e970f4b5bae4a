"""A bundle on a cluster: a set of pods for each version, asked before it gets requests, promoted or taken back."""
