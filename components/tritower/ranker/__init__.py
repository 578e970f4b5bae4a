"""Ranker: the Triple Tower Deep Pointwise network, its training and its scoring."""
