"""Qwen2's tokenizer, rebuilt from its published vocabulary (data/qwen): for tests and benchmarks."""

from __future__ import annotations

import base64
import json
import lzma
from itertools import pairwise
from pathlib import Path

from workflow.byte_level import byte_symbols
from workflow.tiny_model import CHAT_TEMPLATE, SPECIALS, SPLIT_PATTERN


def merge_of(token: bytes, ranks: dict[bytes, int]) -> list[bytes]:
    """The two parts that `token` was merged from: what merges of lower rank leave of it."""
    parts = [token[i : i + 1] for i in range(len(token))]
    while len(parts) > 2:
        candidates = [ranks.get(a + b, len(ranks)) for a, b in pairwise(parts)]
        i = min(range(len(candidates)), key=candidates.__getitem__)
        parts[i : i + 2] = [parts[i] + parts[i + 1]]
    return parts


def write_tokenizer(folder: Path, size: int | None = None) -> int:
    """Write Qwen2's tokenizer files, or one of its first `size` tokens; the id of <|endoftext|>."""
    from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers

    lines = lzma.decompress((Path(__file__).parent / "data/qwen/qwen.tiktoken.xz").read_bytes()).split(b"\n")
    ranks = {base64.b64decode(token): int(rank) for token, rank in (line.split() for line in lines if line)}
    ranks = {token: rank for token, rank in ranks.items() if size is None or rank < size}
    symbols = byte_symbols()
    text = {token: "".join(map(symbols.__getitem__, token)) for token in ranks}
    pairs = [merge_of(token, ranks) for token in sorted(ranks, key=ranks.__getitem__) if len(token) > 1]
    vocabulary = {text[token]: rank for token, rank in ranks.items()}
    tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=[(text[a], text[b]) for a, b in pairs]))
    tokenizer.normalizer = normalizers.NFC()
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([
        pre_tokenizers.Split(Regex(SPLIT_PATTERN), behavior="isolated"),
        pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
    ])  # fmt: skip
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens([AddedToken(token, normalized=False) for token in SPECIALS])
    folder.mkdir(parents=True, exist_ok=True)
    tokenizer.save(str(folder / "tokenizer.json"), pretty=False)
    first = len(ranks)
    settings = {
        "tokenizer_class": "Qwen2Tokenizer", "chat_template": CHAT_TEMPLATE, "eos_token": "<|im_end|>",
        "pad_token": "<|endoftext|>", "bos_token": None, "unk_token": None, "errors": "replace",
        "clean_up_tokenization_spaces": False, "add_prefix_space": False, "model_max_length": 131072,
    }  # fmt: skip
    generation = {"do_sample": True, "eos_token_id": [first + 2, first], "pad_token_id": first}
    for name, content in (("tokenizer_config", settings), ("generation_config", generation)):
        (folder / f"{name}.json").write_text(json.dumps(content), encoding="utf-8")
    return first
