"""The demo's tiny Qwen2: configuration and tokenizer files, without weights.

The architecture is Qwen2's at 0.2 M parameters. The tokenizer is a byte-level
BPE as Qwen2's own is, with merges only inside a character of the puzzles and
inside a few fixed words, so that in effect a token is a character, and any
other text still round-trips through its bytes. The normaliser (NFC) and the
split pattern are Qwen2's too: transformers puts them in whatever
``tokenizer.json`` says when ``model_type`` is ``qwen2``, so other ones would
make the tokens depend on which loader reads the file.
"""

from __future__ import annotations

import json
from pathlib import Path

from workflow.byte_level import byte_symbols

SPECIALS = ("<|endoftext|>", "<|im_start|>", "<|im_end|>")
WORDS = ("system", "user", "assistant", "答案是")
CHARACTERS = (
    "一二三四五六七八九十零百千万第步从开始先再最后每只留看个位数字得几到加减乘除等于"
    "小明红刚丽华军你我他是的不和有在了这那么就对错大中上下多少问答案题解逻辑推理专家"
    "，。：；？！、（）“”"
)
SPLIT_PATTERN = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}"
    r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
CHAT_TEMPLATE = (
    "{% for message in messages %}"
    "{% if loop.first and messages[0]['role'] != 'system' %}"
    "{{ '<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n' }}"
    "{% endif %}"
    "{{ '<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>' + '\n' }}"
    "{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)


def write_model(folder: str | Path) -> None:
    """Write the files of the untrained tiny model into a folder.

    The files are ``config.json``, ``generation_config.json``,
    ``tokenizer.json`` and ``tokenizer_config.json``; the same bytes every time.

    Args:
        folder: Where to write; made if absent. Files of these names are replaced.
    """
    folder = Path(folder)
    identities = write_tokenizer(folder)
    write_json(folder / "config.json", _config(max(identities.values()) + 1, identities))


def write_tokenizer(folder: Path) -> dict[str, int]:
    """Write the tokenizer's files alone, and the tokens that generation stops at.

    Args:
        folder: Where to write; made if absent.

    Returns:
        Ids of the special tokens, the last ones that there are.
    """
    folder.mkdir(parents=True, exist_ok=True)
    vocabulary, merges = _vocabulary()
    (folder / "tokenizer.json").write_text(_tokenizer(vocabulary, merges), encoding="utf-8")
    identities = {token: len(vocabulary) + i for i, token in enumerate(SPECIALS)}
    stops = {
        "do_sample": False,
        "eos_token_id": [identities["<|im_end|>"], identities["<|endoftext|>"]],
        "pad_token_id": identities["<|endoftext|>"],
    }
    write_json(folder / "tokenizer_config.json", _tokenizer_config(identities))
    write_json(folder / "generation_config.json", stops)
    return identities


def write_json(path: Path, content: object) -> None:
    """Write a configuration as people read it, the same bytes every time."""
    text = json.dumps(content, ensure_ascii=False, indent=2, sort_keys=True)
    path.write_text(text + "\n", encoding="utf-8")


def _vocabulary() -> tuple[dict[str, int], list[tuple[str, str]]]:
    """Return the token ids and the merges: 256 bytes, then characters, then words.

    A character's bytes are joined from the left. Only the first byte of a
    character is a lead byte, so no merge joins parts of two characters.
    """
    symbols = byte_symbols()
    tokens = [symbols[byte] for byte in range(256)]
    known = set(tokens)
    merges: list[tuple[str, str]] = []
    spelled = [[symbols[byte] for byte in char.encode()] for char in dict.fromkeys(CHARACTERS)]
    for word in WORDS:
        spelled.append(["".join(symbols[byte] for byte in char.encode()) for char in word])
    for whole, *parts in spelled:
        for part in parts:
            if whole + part not in known:
                known.add(whole + part)
                tokens.append(whole + part)
                merges.append((whole, part))
            whole += part
    return {token: i for i, token in enumerate(tokens)}, merges


def _tokenizer(vocabulary: dict[str, int], merges: list[tuple[str, str]]) -> str:
    """Return ``tokenizer.json``: byte-level BPE with Qwen2's normaliser and split pattern."""
    from tokenizers import (
        AddedToken,
        Regex,
        Tokenizer,
        decoders,
        models,
        normalizers,
        pre_tokenizers,
    )

    tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=merges))
    tokenizer.normalizer = normalizers.NFC()
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(SPLIT_PATTERN), behavior="isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens([AddedToken(token, normalized=False) for token in SPECIALS])
    return str(tokenizer.to_str(pretty=True)) + "\n"


def _tokenizer_config(identities: dict[str, int]) -> dict[str, object]:
    """Return ``tokenizer_config.json``, with Qwen's ChatML template inside."""
    decoder = {
        str(identity): {
            "content": token,
            "lstrip": False,
            "normalized": False,
            "rstrip": False,
            "single_word": False,
            "special": True,
        }
        for token, identity in identities.items()
    }
    return {
        "added_tokens_decoder": decoder,
        "chat_template": CHAT_TEMPLATE,
        "clean_up_tokenization_spaces": False,
        "eos_token": "<|im_end|>",
        "model_max_length": 512,
        "pad_token": "<|endoftext|>",
        "tokenizer_class": "Qwen2Tokenizer",
    }


def _config(vocab_size: int, identities: dict[str, int]) -> dict[str, object]:
    """Return ``config.json``.

    A head is 32 wide, the smallest that vLLM's CPU attention computes. Initial
    weights are three times as large as Qwen2's (0.02 suits widths in the
    thousands): at width 64 that decides whether training leaves its first plateau.
    """
    return {
        "architectures": ["Qwen2ForCausalLM"],
        "attention_dropout": 0.0,
        "bos_token_id": None,
        "dtype": "float32",
        "eos_token_id": identities["<|im_end|>"],
        "hidden_act": "silu",
        "hidden_size": 64,
        "initializer_range": 0.06,
        "intermediate_size": 192,
        "max_position_embeddings": 512,
        "model_type": "qwen2",
        "num_attention_heads": 2,
        "num_hidden_layers": 3,
        "num_key_value_heads": 2,
        "pad_token_id": identities["<|endoftext|>"],
        "rms_norm_eps": 1e-6,
        "rope_theta": 10000.0,
        "tie_word_embeddings": True,
        "use_cache": True,
        "use_sliding_window": False,
        "vocab_size": vocab_size,
    }
