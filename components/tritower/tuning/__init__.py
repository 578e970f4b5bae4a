"""Which knobs rank best: a search over one space, by Optuna on this machine or by Katib on a cluster."""
