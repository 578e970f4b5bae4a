"""The pipelines: which step feeds which, how they are compiled, run, submitted and scheduled."""
