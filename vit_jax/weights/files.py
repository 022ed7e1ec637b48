"""Arrays in files, read without trusting the file and written so that a failure leaves the old file whole."""

import contextlib
import dataclasses
import io
import json
import math
import os
import pathlib
import re
import uuid
import zipfile
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import ml_dtypes
import numpy as np
import safetensors

from vit_jax.errors import InputError

PICKLES = (".bin", ".pt", ".pth", ".pkl", ".ckpt")
# Numbers read, converted and checked at a time: small enough for the cache, and all the memory beyond the result.
CHUNK = 1 << 20
FLOATS = (("f", 2), ("f", 4), ("f", 8))


@dataclasses.dataclass(frozen=True)
class Stored:
    """An array of an open file: its shape is known, and `np.asarray` reads it, as float32, each time anew.

    Reading raises `InputError` if it holds NaN or infinity, or is damaged.
    """

    shape: tuple[int, ...]
    read: Callable[[], np.ndarray]

    def __len__(self) -> int:
        return self.shape[0]

    @property
    def ndim(self) -> int:
        """Number of axes."""
        return len(self.shape)

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        return self.read().astype(dtype or np.float32, copy=False)


@contextlib.contextmanager
def open_arrays(path: str | os.PathLike, skip: str | None = None) -> Iterator[dict[str, Stored]]:
    """Yield the named arrays of an `.npz` or `.safetensors` file, in the file's order, to be read while it is open.

    Args:
        skip: regular expression; arrays whose whole name matches are left out (an optimizer's state, say).

    Raises:
        InputError: a missing, truncated or foreign file, a pickle, an array that is not of floats, no arrays at all.
    """
    path = pathlib.Path(path)
    ending = path.suffix.lower()
    if ending in PICKLES:
        raise InputError(
            f"{path}: {ending} files are pickles, which can run any code when opened; where you trust it, convert it: "
            'python -c "import torch, safetensors.torch as s; '
            f"w = torch.load('{path}', map_location='cpu', weights_only=True); "
            f"s.save_file({{k: v.clone().contiguous() for k, v in w.items()}}, '{path.with_suffix('.safetensors')}')\""
        )
    if ending == ".h5":
        raise InputError(f"{path}: HDF5 isn't read; get the .npz or .safetensors file of these weights")
    opened = {".npz": _open_npz, ".safetensors": _open_safetensors}.get(ending)
    if opened is None:
        raise InputError(f"{path}: a weight file ends in .npz or .safetensors")
    with contextlib.ExitStack() as stack:
        with _refusing(path):
            arrays = opened(path, re.compile(skip) if skip else None, stack)
        if not arrays and skip is None:
            raise InputError(f"{path}: holds no arrays")
        yield arrays


def read_arrays(path: str | os.PathLike, skip: str | None = None) -> dict[str, np.ndarray]:
    """Return all the arrays that `open_arrays` yields, as float32.

    Raises:
        InputError: as for `open_arrays`, and NaN or infinity.
    """
    with open_arrays(path, skip) as arrays:
        return {name: np.asarray(array) for name, array in arrays.items()}


def write_npz(path: str | os.PathLike, arrays: Mapping[str, Any]) -> None:
    """Write arrays to an uncompressed `.npz` atomically; equal arrays give equal bytes.

    Raises:
        InputError: the folder is missing or can't be written, or the disk is full; an older file is left as it was.
    """
    with replacing(path) as part, zipfile.ZipFile(part, "w") as archive:
        for name, array in arrays.items():
            # A bare ZipInfo carries no time of writing.
            with archive.open(zipfile.ZipInfo(f"{name}.npy"), "w", force_zip64=True) as stream:
                np.lib.format.write_array(stream, np.asarray(array, order="C"), allow_pickle=False)


def write_safetensors(
    path: str | os.PathLike, arrays: Mapping[str, Any], metadata: dict[str, str] | None = None
) -> None:
    """Write arrays to a `.safetensors` file atomically.

    Raises:
        InputError: the folder is missing or can't be written, or the disk is full; an older file is left as it was.
    """
    names = {"float64": "F64", "float32": "F32", "float16": "F16", "bfloat16": "BF16", "int64": "I64"}
    header, end = {"__metadata__": metadata} if metadata else {}, 0
    for name, array in arrays.items():
        start, end = end, end + array.nbytes
        header[name] = {"dtype": names[array.dtype.name], "shape": list(array.shape), "data_offsets": [start, end]}
    encoded = json.dumps(header, separators=(",", ":")).encode()
    encoded += b" " * (-len(encoded) % 8)
    # The library's writer wants every array laid out at once; here a transposed view is laid out in its turn.
    with replacing(path) as part, open(part, "wb") as file:
        file.write(len(encoded).to_bytes(8, "little") + encoded)
        for array in arrays.values():
            file.write(np.asarray(array, order="C").reshape(-1).view(np.uint8).data)


@contextlib.contextmanager
def replacing(path: str | os.PathLike) -> Iterator[pathlib.Path]:
    """Yield a temporary path in the same folder, which becomes `path` once the block ends and it is on the disk.

    Raises:
        InputError: what was written could not be kept; `path` is as it was and the temporary file is gone.
    """
    path = pathlib.Path(path)
    if not path.parent.is_dir():
        raise InputError(f"{path}: can't be written: there is no folder {str(path.parent)!r}")
    part = path.with_name(f".{uuid.uuid4().hex[:8]}.{path.name}")
    try:
        part.touch()
        mode = part.stat().st_mode
        yield part
        # The safetensors library makes files that only their owner may read.
        part.chmod(mode)
        with open(part, "rb") as file:
            os.fsync(file.fileno())
        os.replace(part, path)
    except (OSError, safetensors.SafetensorError) as error:
        raise InputError(f"{path}: can't be written ({getattr(error, 'strerror', None) or _line(error)})") from error
    finally:
        with contextlib.suppress(OSError):
            part.unlink()


@contextlib.contextmanager
def _refusing(path: pathlib.Path) -> Iterator[None]:
    try:
        yield
    except InputError:
        raise
    except OSError as error:
        raise InputError(f"{path}: can't be read ({error.strerror or _line(error)})") from error
    except Exception as error:  # The parsers raise a dozen types on damaged bytes, struct.error to RecursionError.
        raise InputError(
            f"{path}: not a whole {path.suffix.lower()} file ({_line(error)}); delete it and download or write it again"
        ) from error


def _open_npz(path: pathlib.Path, skip: re.Pattern | None, stack: contextlib.ExitStack) -> dict[str, Stored]:
    archive, arrays = stack.enter_context(zipfile.ZipFile(path)), {}
    for member in archive.infolist():
        name = member.filename.removesuffix(".npy")
        if not (skip and skip.fullmatch(name)):
            arrays[name] = _member(path, archive, member, name)
    return arrays


def _member(path: pathlib.Path, archive: zipfile.ZipFile, member: zipfile.ZipInfo, name: str) -> Stored:
    headers = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}
    where = f"{path}: {name}"
    with archive.open(member) as stream:
        shape, columns_first, dtype = headers[np.lib.format.read_magic(stream)](stream)
        start = stream.tell()
    # NumPy has no name for bfloat16 and writes it as two bytes of anything.
    dtype = np.dtype(ml_dtypes.bfloat16) if dtype == np.dtype("V2") else dtype
    if dtype != ml_dtypes.bfloat16 and (dtype.kind, dtype.itemsize) not in FLOATS:
        raise InputError(_not_floats(where, dtype))
    if start + math.prod(shape) * dtype.itemsize != member.file_size:
        raise InputError(f"{where} claims shape {shape}, which isn't the size of what is stored")

    def read() -> np.ndarray:
        with _refusing(path), archive.open(member) as stream:
            stream.read(start)
            array = _read_floats(stream, dtype, shape[::-1] if columns_first else shape, where)
            # The checksum is compared where a read meets the end.
            stream.read(1)
        return array.T if columns_first else array

    return Stored(shape, read)


def _open_safetensors(path: pathlib.Path, skip: re.Pattern | None, stack: contextlib.ExitStack) -> dict[str, Stored]:
    dtypes = {"F64": "<f8", "F32": "<f4", "F16": "<f2", "BF16": ml_dtypes.bfloat16}
    # The library checks the header against the file; its arrays are mapped pages, which would count as memory twice.
    with safetensors.safe_open(path, framework="np"):
        stream = stack.enter_context(path.open("rb"))
    size = int.from_bytes(stream.read(8), "little")
    header = json.loads(stream.read(size))
    header.pop("__metadata__", None)

    def stored(name: str, entry: dict[str, Any]) -> Stored:
        where, shape = f"{path}: {name}", tuple(entry["shape"])
        if entry["dtype"] not in dtypes:
            raise InputError(_not_floats(where, entry["dtype"]))

        def read() -> np.ndarray:
            with _refusing(path):
                stream.seek(8 + size + entry["data_offsets"][0])
                return _read_floats(stream, np.dtype(dtypes[entry["dtype"]]), shape, where)

        return Stored(shape, read)

    return {name: stored(name, entry) for name, entry in header.items() if not (skip and skip.fullmatch(name))}


def _read_floats(stream: io.BufferedIOBase, dtype: np.dtype, shape: tuple[int, ...], where: str) -> np.ndarray:
    """Read the next `shape` numbers of a stream as float32, refusing what is not finite."""
    array = np.empty(math.prod(shape), np.float32)
    for start in range(0, array.size, CHUNK):
        part = array[start : start + CHUNK]
        raw = part if dtype == part.dtype else np.empty(part.shape, dtype)
        if stream.readinto(raw.view(np.uint8)) != raw.nbytes:
            raise InputError(f"{where} ends early: the file is truncated; delete it and download or write it again")
        with np.errstate(all="ignore"):
            part[:] = raw
        if not np.isfinite(part).all():
            raise InputError(f"{where} holds NaN or infinity (or more than float32 can hold)")
    return array.reshape(shape)


def _not_floats(where: str, dtype: Any) -> str:
    return f"{where} is of type {dtype}; weights are float16, bfloat16, float32 or float64"


def _line(error: Exception) -> str:
    return " ".join(str(error).split()) or type(error).__name__
