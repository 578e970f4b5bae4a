"""Metrics that several rooms use, each once: `auc`, `ranking`, `intervals`, `examination`. Arrays in, numbers out; no files."""
