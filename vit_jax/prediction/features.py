"""Features of pictures, written as they come: as arrays in an .npz file, or as a Parquet table."""

import contextlib
import shutil
import tempfile
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import IO

import numpy as np

from vit_jax.prediction.forward import Predictions
from vit_jax.prediction.tables import Write, as_text, check_output
from vit_jax.weights.files import replacing

GROUP = 1 << 25  # bytes in a row group of a Parquet file, about


@contextlib.contextmanager
def writing_features(path: Path) -> Iterator[Write]:
    """Open a file of features for writing: `path` appears, or is replaced, when the block ends without an error.

    It has a row for every picture that was asked for, in order: `paths` and `features`, float32 (pictures, dim). A
    picture that can't be read has NaN.

    Raises:
        InputError: its ending is not .npz or .parquet, or it can't be written.
    """
    check_output("features", path, FILES)
    with replacing(path) as part, FILES[path.suffix](part) as write:
        yield write


@contextlib.contextmanager
def _npz(path: Path) -> Iterator[Write]:
    # The header of an array says how many rows it has, which is known at the end; until then they lie beside the file.
    with tempfile.TemporaryFile(dir=path.parent) as rows, tempfile.TemporaryFile(dir=path.parent) as names:
        shape, longest = (0, 0), 1

        def write(predictions: Predictions) -> None:
            nonlocal shape, longest
            features = _features(predictions)
            rows.write(features.data)
            for row in predictions.rows:
                path = as_text(row.path)
                names.write(path.encode() + b"\0")
                longest = max(longest, len(path))
            shape = (shape[0] + len(features), features.shape[1])

        yield write
        start_array = np.lib.format.write_array_header_1_0
        with zipfile.ZipFile(path, "w") as archive:
            with archive.open("features.npy", "w", force_zip64=True) as member:
                start_array(member, {"descr": "<f4", "fortran_order": False, "shape": shape})
                rows.seek(0)
                shutil.copyfileobj(rows, member, 1 << 20)
            # Four bytes a letter, mostly zeros.
            paths = zipfile.ZipInfo("paths.npy")
            paths.compress_type = zipfile.ZIP_DEFLATED
            with archive.open(paths, "w", force_zip64=True) as member:
                start_array(member, {"descr": f"<U{longest}", "fortran_order": False, "shape": shape[:1]})
                names.seek(0)
                for some in _split(names):
                    member.write(np.array(some, f"<U{longest}").tobytes())


def _split(file: IO[bytes]) -> Iterator[list[str]]:
    """Yield the texts of a file, each of which ends in a zero byte, some at a time."""
    rest = b""
    while block := file.read(1 << 16):
        *whole, rest = (rest + block).split(b"\0")
        yield [each.decode() for each in whole]


@contextlib.contextmanager
def _parquet(path: Path) -> Iterator[Write]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    writer, waiting = None, []

    def write(predictions: Predictions) -> None:
        features = _features(predictions)
        kind = pa.list_(pa.float32(), features.shape[1])
        columns = [
            pa.array([as_text(row.path) for row in predictions.rows]),
            pa.FixedSizeListArray.from_arrays(pa.array(features.reshape(-1)), type=kind),
            pa.array([row.error for row in predictions.rows], pa.string()),
        ]
        waiting.append(pa.table(columns, names=["path", "features", "error"]))
        if sum(table.nbytes for table in waiting) >= GROUP:
            flush()

    def flush() -> None:
        nonlocal writer
        writer = writer or pq.ParquetWriter(file, waiting[0].schema)
        writer.write_table(pa.concat_tables(waiting))
        waiting.clear()

    with path.open("wb") as file:
        yield write
        if waiting:
            flush()
        if writer is not None:
            writer.close()


def _features(predictions: Predictions) -> np.ndarray:
    bad = np.array([row.error is not None for row in predictions.rows])
    return np.where(bad[:, None], np.float32(np.nan), predictions.features)


FILES = {".npz": _npz, ".parquet": _parquet}
