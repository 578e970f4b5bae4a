"""The text encoder: a sentence-transformers model, fine-tuned on clicks, and the embedding of every distinct text once."""
