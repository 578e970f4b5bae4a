"""Choosing candidate jobs for searches, and turning their scores into the top K jobs of each search."""
