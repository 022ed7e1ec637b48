"""The classes of a data set among those of a model, by name."""

from collections.abc import Iterable, Sequence

import numpy as np
from jaxtyping import Int32

from vit_jax.errors import InputError
from vit_jax.labels.imagenet import ids_of, imagenet_names

SHOWN = 3  # names of a difference


def match(data_names: Sequence[str], model_names: Sequence[str], where: str) -> Int32[np.ndarray, " classes"]:
    """Return the index among a model's classes of each class of a data set.

    Names must be equal. If some are not and the model's classes are ImageNet's, a class also goes by its WordNet id,
    and by each of its comma-separated names that no other class has. The model may have more classes than the data.

    Args:
        where: what is matched, which begins the message.

    Raises:
        InputError: the model lacks classes of the data, or two classes of the data are one of the model's.
    """
    known = _indices((name, index) for index, name in enumerate(model_names))
    found = [known.get(name, []) for name in data_names]
    if any(len(indices) != 1 for indices in found) and (ids := ids_of(model_names)):
        known = _indices(_aliases(ids)) | known
        found = [known.get(name, []) for name in ids_of(data_names) or data_names]
    taken = {}
    for name, indices in zip(data_names, found, strict=True):
        if len(indices) == 1 and taken.setdefault(indices[0], name) != name:
            both, one = f"{taken[indices[0]]!r} and {name!r}", model_names[indices[0]]
            raise InputError(f"{where}: the data's classes {both} are one class of the model, {one!r}; merge them")
    lacking = [name for name, indices in zip(data_names, found, strict=True) if len(indices) != 1]
    if lacking:
        raise InputError(
            f"{where}: the data has {_listed(lacking)} that the model lacks{_ambiguous(lacking, known)}; the model has "
            f"{_listed([name for index, name in enumerate(model_names) if index not in taken])} that the data lacks; "
            "rename classes, or give evaluate the model's names with --labels=FILE"
        )
    return np.array([index for (index,) in found], np.int32)


def _aliases(ids: tuple[str, ...]) -> Iterable[tuple[str, int]]:
    for index, (synset, name) in enumerate(zip(ids, imagenet_names(len(ids)), strict=True)):
        for alias in {synset, name, *name.removesuffix(f" ({synset})").split(", ")}:
            yield alias, index


def _indices(pairs: Iterable[tuple[str, int]]) -> dict[str, list[int]]:
    indices = {}
    for name, index in pairs:
        indices.setdefault(name, []).append(index)
    return indices


def _ambiguous(lacking: list[str], known: dict[str, list[int]]) -> str:
    several = [name for name in lacking if name in known]
    return f" ({several[0]!r} is the name of {len(known[several[0]])} of its classes)" if several else ""


def _listed(names: list[str]) -> str:
    if not names:
        return "none"
    shown = [repr(name) for name in names[:SHOWN]] + ["..."] * (len(names) > SHOWN)
    return f"{len(names):,} class{'es' * (len(names) > 1)} ({', '.join(shown)})"
