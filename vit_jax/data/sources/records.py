"""Pictures prepared once for speed: ArrayRecord shards, written by `scripts/prepare_data.py` and read in training.

    DIR/manifest.json                           list of splits and shards; written last, and required for reading
    DIR/train-00000-of-00008.array_record       records: the class, int32 little-endian, then the picture's file
    DIR/train-00000-of-00008.json               labels and checksum; written when the shard is complete

Record i of a split is record i // N of shard i % N: shards are alike, and records keep the order of their source.
"""

import json
import struct
from pathlib import Path
from typing import Any

import numpy as np

from vit_jax.config import Config
from vit_jax.data.sources.source import Record
from vit_jax.errors import InputError

FORMAT = 1
LABEL = struct.Struct("<i")


def shard_name(split: str, shard: int, shards: int) -> str:
    """Return the name of a shard without its extension."""
    return f"{split}-{shard:05d}-of-{shards:05d}"


class RecordsSource:
    """A split of a prepared data set: `shards` files, record i in file i % shards; each is opened when first read."""

    columns = ("label",)

    def __init__(self, files: list[Path], labels: np.ndarray, label_names: tuple[str, ...]):
        self.labels, self.label_names = labels.astype(np.int32), label_names
        self._files, self._readers = files, {}

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int) -> Record:
        place, shard = divmod(index, len(self._files))
        reader = self._readers.get(shard) or self._readers.setdefault(shard, _open(self._files[shard]))
        record = reader.read([place])[0]
        return Record(record[LABEL.size :], {"label": LABEL.unpack_from(record)[0]}, str(index))


def _open(file: Path) -> Any:
    from array_record.python.array_record_module import ArrayRecordReader

    # Reads a picture in one call, in half the time of ArrayRecordDataSource, which reads 32 KiB per call.
    return ArrayRecordReader(
        str(file), options="readahead_buffer_size:0,max_parallelism:0", file_reader_buffer_size=2**18
    )


def read_manifest(folder: Path) -> dict[str, Any]:
    """Return the manifest of a prepared data set.

    Raises:
        InputError: there is none, because the data isn't prepared or isn't finished, or it has another format.
    """
    path = folder / "manifest.json"
    try:
        manifest = json.loads(path.read_text())
    except (FileNotFoundError, NotADirectoryError) as error:
        raise InputError(
            f"{str(folder)!r} holds no finished records: it has no manifest.json; run scripts/prepare_data.py"
        ) from error
    except (OSError, ValueError) as error:
        raise InputError(f"{str(path)!r} can't be read: {error}") from error
    if manifest.get("format") != FORMAT:
        raise InputError(f"{str(path)!r} has format {manifest.get('format')!r}, not {FORMAT}; prepare the data again")
    return manifest


def open_records(config: Config, where: str, split: str, label_names: tuple[str, ...] | None) -> RecordsSource:
    """Read a split that `scripts/prepare_data.py` wrote.

    Raises:
        InputError: the split is missing or unfinished, or a shard is missing or truncated.
    """
    folder = _folder(config, where)
    manifest = read_manifest(folder)
    if split not in manifest["splits"]:
        raise InputError(f"records {str(folder)!r} have no split {split!r}: there is {', '.join(manifest['splits'])}")
    shards = manifest["splits"][split]["shards"]
    labels = np.empty(sum(shard["pictures"] for shard in shards), np.int32)
    for number, shard in enumerate(shards):
        labels[number :: len(shards)] = _read_labels(folder / f"{shard['name']}.array_record", shard["bytes"])
    files = [folder / f"{shard['name']}.array_record" for shard in shards]
    return RecordsSource(files, labels, tuple(manifest["label_names"]))


def prepared_splits(config: Config, where: str) -> tuple[str, ...]:
    """Return the names of the splits that `scripts/prepare_data.py` wrote."""
    return tuple(read_manifest(_folder(config, where))["splits"])


def _folder(config: Config, where: str) -> Path:
    where = config.data.path or where
    if not where:
        raise InputError("config.data.name='records' names no directory: write records:DIR, or set config.data.path")
    return Path(where).expanduser()


def _read_labels(file: Path, size: int) -> list[int]:
    try:
        whole = file.stat().st_size == size
        labels = json.loads(file.with_suffix(".json").read_text())["labels"]
    except (OSError, ValueError, KeyError) as error:
        raise InputError(f"shard {str(file)!r} can't be read: {error}") from error
    if not whole:
        raise InputError(f"shard {str(file)!r} is not whole; copy it again, or delete it and prepare again")
    return labels
