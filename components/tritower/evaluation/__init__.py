"""Who ranks better, by how much, and how sure: on randomised and on logged searches."""
