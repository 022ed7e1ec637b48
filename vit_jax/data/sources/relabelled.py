"""A source whose classes get the numbers of another list of classes."""

import numpy as np
from jaxtyping import Int, Integer, UInt8

from vit_jax.data.sources.source import ArraySource, Record, Source


class Relabelled:
    """The records of another source, with class i as class `index[i]` of `label_names`."""

    def __init__(self, source: Source, index: Int[np.ndarray, " own"], label_names: tuple[str, ...]):
        self.source, self.index = source, index
        self.label_names, self.columns = label_names, source.columns
        self.lacks = getattr(source, "lacks", {})

    def __len__(self) -> int:
        return len(self.source)

    def __getitem__(self, index: int) -> Record:
        picture, columns, identifier = self.source[index]
        columns = dict(columns)
        # A record may have other columns of these names, with text.
        if "label" in self.columns:
            columns["label"] = int(self.index[columns["label"]])
        if "labels" in self.columns and isinstance(columns["labels"], np.ndarray):
            columns["labels"] = self._spread(columns["labels"])
        return Record(picture, columns, identifier)

    @property
    def labels(self) -> Integer[np.ndarray, "n *classes"]:
        """The labels of all records; the other source may read them only now."""
        labels = self.source.labels
        return self.index[labels].astype(np.int32) if labels.ndim == 1 else self._spread(labels)

    def _spread(self, labels: UInt8[np.ndarray, "*n own"]) -> UInt8[np.ndarray, "*n classes"]:
        spread = np.zeros((*labels.shape[:-1], len(self.label_names)), np.uint8)
        spread[..., self.index] = labels
        return spread


def relabel(source: Source, index: Int[np.ndarray, " own"], label_names: tuple[str, ...]) -> Source:
    """Return a source with class i as class `index[i]` of `label_names`, in memory if the given one is."""
    found = Relabelled(source, index, label_names)
    return ArraySource(source.images, found.labels, label_names) if isinstance(source, ArraySource) else found
