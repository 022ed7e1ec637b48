"""The tokenizers of CLIP and SigLIP, from the files that Transformers keeps beside their weights.

Their packages, of the extra `[text]`, are imported when a text is first read.
"""

import importlib
import json
import pathlib
import re
import string
import types
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from jaxtyping import Int

from vit_jax.errors import InputError
from vit_jax.weights.folder import read_json

SPIECE, JSON, VOCAB, MERGES = "spiece.model", "tokenizer.json", "vocab.json", "merges.txt"
CONFIG = "tokenizer_config.json"
FILES = (SPIECE, JSON, VOCAB, MERGES, CONFIG)
START, END = "<|startoftext|>", "<|endoftext|>"  # of CLIP
# What CLIP takes for a word: its special tokens, English endings, letters, single digits, and runs of anything else.
WORDS = r"<\|startoftext\|>|<\|endoftext\|>|'s|'t|'re|'ve|'m|'ll|'d|[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}]+"

Encode = Callable[[list[str]], list[list[int]]]


class Tokenizer:
    """Maps texts to numbers of tokens, cut or padded to one length.

    Args:
        length: of every text, with the tokens that begin and end it.
        vocabulary: how many tokens the model knows.
        end: the token that the model looks for in every text, or None.
        lower: whether all is written small first, as SigLIPs were trained.
    """

    def __init__(self, path: pathlib.Path, length: int, vocabulary: int, end: int | None, *, lower: bool):
        self.path, self.length, self._vocabulary, self._end, self._lower = path, length, vocabulary, end, lower
        self._encode: Encode | None = None

    def __call__(self, texts: Sequence[str]) -> Int[np.ndarray, "texts tokens"]:
        """Return the tokens of texts; the end of what is too long is left out.

        Raises:
            InputError: a text is given alone, the folder has no tokenizer, it is damaged or another model's, or its
                package isn't installed.
        """
        if isinstance(texts, str):
            raise InputError(f"tokenize takes a list of texts: [{texts!r}]")
        self._encode = self._encode or _opened(self.path, self.length, self._lower)
        tokens = np.array(self._encode(list(texts)), np.int32).reshape(len(texts), self.length)
        foreign = tokens.max(initial=0) >= self._vocabulary
        if foreign or (self._end is not None and not (tokens == self._end).any(axis=1).all()):
            what = f"knows {self._vocabulary:,} tokens" if foreign else f"looks for token {self._end} at a text's end"
            raise InputError(f"{self.path}: its tokenizer is not its text tower's, which {what}")
        return tokens


def _opened(path: pathlib.Path, length: int, lower: bool) -> Encode:
    folder = path if path.is_dir() else path.parent
    notes = read_json(folder / CONFIG) or {}
    if (folder / SPIECE).is_file():
        open_, file = _sentencepiece, folder / SPIECE
    elif (folder / JSON).is_file():
        open_, file = _tokenizers, folder / JSON
    elif (folder / VOCAB).is_file() and (folder / MERGES).is_file():
        open_, file = _byte_pairs, folder / VOCAB
    else:
        raise InputError(f"{folder}: has no tokenizer: neither {JSON}, {SPIECE} nor {VOCAB} with {MERGES}")
    try:
        return open_(file, notes, length, lower)
    except InputError:
        raise
    except Exception as error:  # Whatever the libraries raise on damaged files.
        raise InputError(f"{file}: not a whole tokenizer ({' '.join(str(error).split())})") from error


def _package(name: str) -> types.ModuleType:
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise InputError(f"{name} is not installed, which reads texts; pip install 'vit_jax[text]'") from error


def _token(notes: dict[str, Any], key: str, otherwise: str) -> str:
    """Return a special token, which older files describe."""
    token = notes.get(key) or otherwise
    return token["content"] if isinstance(token, dict) else token


def _sentencepiece(file: pathlib.Path, notes: dict[str, Any], length: int, lower: bool) -> Encode:
    """SigLIP 1's: punctuation and doubled spaces are left out, and a text ends as it is padded."""
    package = _package("sentencepiece")
    model = package.SentencePieceProcessor(model_proto=file.read_bytes())
    end, pad = (model.piece_to_id(_token(notes, key, "</s>")) for key in ("eos_token", "pad_token"))
    # The library drops a space at the start of a text, so something that is taken away again comes before it.
    guard = _token(notes, "unk_token", "<unk>")
    guards = len(model.encode(guard))

    def encode(text: str) -> list[int]:
        text = "▁" + text.replace("▁", " ")
        text = text.lower() if lower and notes.get("do_lower_case", True) else text
        text = re.sub(r"\s+", " ", text.translate(str.maketrans("", "", string.punctuation))).strip()
        tokens = [*model.encode(guard + text)[guards:][: length - 1], end]
        return tokens + [pad] * (length - len(tokens))

    return lambda texts: [encode(text) for text in texts]


def _tokenizers(file: pathlib.Path, notes: dict[str, Any], length: int, lower: bool) -> Encode:
    return _padded(_package("tokenizers").Tokenizer.from_str(file.read_text("utf-8")), notes, length, lower)


def _byte_pairs(file: pathlib.Path, notes: dict[str, Any], length: int, lower: bool) -> Encode:
    """CLIP's, from its vocabulary and merges."""
    package = _package("tokenizers")
    vocabulary = json.loads(file.read_text("utf-8"))
    lines = file.with_name(MERGES).read_text("utf-8").split("\n")
    merges = [tuple(line.split()) for line in lines if line and not line.startswith("#version")]
    options = dict(continuing_subword_prefix="", end_of_word_suffix="</w>", unk_token=END)
    made = package.Tokenizer(package.models.BPE(vocabulary, merges, **options))
    parts, before, split = package.normalizers, package.pre_tokenizers, package.Regex(WORDS)
    made.normalizer = parts.Sequence([parts.NFC(), parts.Replace(package.Regex(r"\s+"), " "), parts.Lowercase()])
    cut = before.Split(split, behavior="removed", invert=True)
    made.pre_tokenizer = before.Sequence([cut, before.ByteLevel(add_prefix_space=False)])
    ends = (END, vocabulary[END]), (START, vocabulary[START])
    made.post_processor = package.processors.RobertaProcessing(*ends, trim_offsets=False, add_prefix_space=False)
    notes = {"pad_token": END} | notes
    made.add_special_tokens(list(dict.fromkeys([START, END, _token(notes, "pad_token", END)])))
    return _padded(made, notes, length, lower)


def _padded(tokenizer: Any, notes: dict[str, Any], length: int, lower: bool) -> Encode:
    pad = _token(notes, "pad_token", "<pad>")
    number = tokenizer.token_to_id(pad)
    if number is None:
        raise InputError(f"pads with {pad!r}, which is none of its tokens")
    tokenizer.enable_truncation(length)
    tokenizer.enable_padding(direction=notes.get("padding_side", "right"), pad_id=number, pad_token=pad, length=length)
    ready = str.lower if lower else str
    return lambda texts: [each.ids for each in tokenizer.encode_batch([ready(text) for text in texts])]
