"""Raw logs in, one clean, numbered, time-split dataset out."""
