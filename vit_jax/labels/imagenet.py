"""The classes of ImageNet in the order of the published heads; README.md says where `imagenet.tsv.xz` comes from."""

import functools
import importlib.resources
import lzma
from collections import Counter
from collections.abc import Sequence

# ImageNet-1k; ImageNet-21k without two of its classes (timm's "in22k"); ImageNet-21k of ViT, AugReg and BiT.
HEADS = (1000, 21841, 21843)


def imagenet_ids(num_classes: int) -> tuple[str, ...] | None:
    """Return the WordNet ids ("n01440764") of a head's outputs in order, or None if `num_classes` is not in `HEADS`."""
    return tuple(_classes(num_classes)) if num_classes in HEADS else None


def imagenet_names(num_classes: int) -> tuple[str, ...] | None:
    """Return the names ("tench, Tinca tinca") of a head's outputs in order, or None if `num_classes` is not in `HEADS`.

    They are unique: where two classes of a head have one name, as with crane, the bird and the machine, the WordNet
    id follows in parentheses.
    """
    return tuple(_classes(num_classes).values()) if num_classes in HEADS else None


def told_apart(names: Sequence[str]) -> tuple[str, ...]:
    """Return names as they are, or as `imagenet_names` has them if they are ImageNet's and one of them occurs twice.

    Transformers' own files call two of the 1,000 classes crane.
    """
    return imagenet_names(len(names)) if len(set(names)) < len(names) and ids_of(names) else tuple(names)


def ids_of(names: Sequence[str]) -> tuple[str, ...] | None:
    """Return the WordNet ids of a whole list of ImageNet's names or ids, in the order of a head; None for any other.

    The names that two classes share may differ: other code bases tell them apart in other ways, or not at all.
    """
    ids = imagenet_ids(len(names))
    if ids is None or tuple(names) == ids:
        return ids
    pairs = zip(names, _classes(len(names)).items(), strict=True)
    return ids if all(name in (own, synset) or own.endswith(f"({synset})") for name, (synset, own) in pairs) else None


def spoken(names: Sequence[str]) -> tuple[str, ...]:
    """Return names for use in a sentence: where all are WordNet ids of ImageNet, or a whole list of its names, words.

    That is the first of a class's names, or all of them where two classes share the first; other names are as they are.
    """
    words = {synset: name for size in HEADS for synset, name in _classes(size).items()}
    ids = ids_of(names) or tuple(names)
    if not all(synset in words for synset in ids):
        return tuple(names)
    firsts = [words[synset].removesuffix(f" ({synset})").split(", ")[0] for synset in ids]
    count = Counter(firsts)
    return tuple(words[synset] if count[first] > 1 else first for synset, first in zip(ids, firsts, strict=True))


@functools.cache
def _classes(num_classes: int) -> dict[str, str]:
    packed = importlib.resources.files(__package__).joinpath("imagenet.tsv.xz").read_bytes()
    rows = [line.split("\t") for line in lzma.decompress(packed).decode().splitlines()]
    names = {synset: name for synset, heads, name in rows if str(num_classes) in heads.split()}
    count = Counter(names.values())
    return {synset: f"{name} ({synset})" if count[name] > 1 else name for synset, name in names.items()}
