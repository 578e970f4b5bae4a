"""Did it win online? Planning a test, and an analysis of it that one can trust."""
