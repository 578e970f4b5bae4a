"""A random two-layer BERT over a small vocabulary as a sentence-transformers model."""

from pathlib import Path

import torch
from sentence_transformers import SentenceTransformer
from sentence_transformers.sentence_transformer.modules import Normalize, Pooling, Transformer
from transformers import BertConfig, BertModel, BertTokenizerFast

TRADES = ["nurse", "driver", "cook", "clerk", "welder", "teacher"]
LEVELS = ["junior", "senior", "lead", "night", "part time"]
COMPANIES = ["acme", "globex", "initech"]


def write(folder: Path) -> Path:
    """Write it below `folder`; its own folder."""
    folder.mkdir(parents=True, exist_ok=True)
    words = sorted({word for text in [*TRADES, *LEVELS, *COMPANIES, "wanted ,"] for word in text.split()})
    letters = [f"{mark}{letter}" for letter in "abcdefghijklmnopqrstuvwxyz" for mark in ("", "##")]
    vocabulary = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *words, *letters]
    (folder / "vocab.txt").write_text("\n".join(dict.fromkeys(vocabulary)) + "\n")
    tokenizer = BertTokenizerFast(str(folder / "vocab.txt"), model_max_length=32)
    torch.manual_seed(0)
    shape = BertConfig(
        vocab_size=len(tokenizer), hidden_size=32, num_hidden_layers=2, num_attention_heads=4, intermediate_size=64,
        max_position_embeddings=40,
    )  # fmt: skip
    BertModel(shape).save_pretrained(folder / "bert")
    tokenizer.save_pretrained(folder / "bert")
    chain = [Transformer(str(folder / "bert"), max_seq_length=32), Pooling(32), Normalize()]
    SentenceTransformer(modules=chain, device="cpu").save_pretrained(str(folder / "model"))
    return folder / "model"
