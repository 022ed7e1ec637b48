"""Weight files: what is read back, what is refused and how, and that a failed write does no harm."""

import io
import json
import pathlib
import random
import resource
import struct
import zipfile

import ml_dtypes
import numpy as np
import pytest
import safetensors
import safetensors.numpy

from vit_jax.errors import InputError
from vit_jax.weights.files import CHUNK, read_arrays, write_npz, write_safetensors

WRITERS = {".npz": write_npz, ".safetensors": write_safetensors}
ENDINGS = tuple(WRITERS)


def some_arrays():
    rng = np.random.default_rng(0)
    return {
        "head/kernel": rng.standard_normal((4, 3), dtype=np.float32),
        "transposed": rng.standard_normal((5, 2), dtype=np.float32).T,
        "scale": np.float32(3.5),
        "none": np.zeros((0, 3), np.float32),
        "longer than a chunk": rng.standard_normal(CHUNK + 7, dtype=np.float32),
    }


def assert_same(actual, expected):
    assert set(actual) == set(expected)
    for name, array in expected.items():
        assert actual[name].dtype == np.float32
        np.testing.assert_array_equal(actual[name], array, err_msg=name)
        assert actual[name].shape == np.shape(array)


def refusal(path):
    """Return the one-line error from reading `path`."""
    with pytest.raises(InputError) as caught:
        read_arrays(path)
    message = str(caught.value)
    assert str(path) in message
    assert "\n" not in message
    return message


def npy(array=None, *, header=None, data=b""):
    """Return an .npy member: a NumPy array, or the given header text and bytes."""
    stream = io.BytesIO()
    if header is None:
        np.lib.format.write_array(stream, array)
    else:
        stream.write(b"\x93NUMPY\x01\x00" + struct.pack("<H", len(header)) + header.encode() + data)
    return stream.getvalue()


def zip_of(path, members, compression=zipfile.ZIP_STORED):
    with zipfile.ZipFile(path, "w", compression) as archive:
        for name, data in members.items():
            archive.writestr(name, data)
    return path


def safetensors_of(path, header, data=b"", length=None):
    text = json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(text) if length is None else length) + text + data)
    return path


@pytest.mark.parametrize("ending", ENDINGS)
def test_round_trip(tmp_path, ending):
    path = tmp_path / f"w{ending}"
    WRITERS[ending](path, some_arrays())
    assert_same(read_arrays(path), some_arrays())
    assert_same(read_arrays(str(path), skip="longer.*|head"), {k: v for k, v in some_arrays().items() if k[0] != "l"})
    assert list(tmp_path.iterdir()) == [path]
    (tmp_path / "other").touch()
    assert path.stat().st_mode == (tmp_path / "other").stat().st_mode


def test_numpy_and_safetensors_read_what_is_written(tmp_path):
    write_npz(tmp_path / "w.npz", some_arrays())
    with np.load(tmp_path / "w.npz") as file:
        assert_same(dict(file), some_arrays())
    write_safetensors(tmp_path / "w.safetensors", some_arrays(), {"format": "pt"})
    assert_same(safetensors.numpy.load_file(tmp_path / "w.safetensors"), some_arrays())
    with safetensors.safe_open(tmp_path / "w.safetensors", framework="np") as file:
        assert file.metadata() == {"format": "pt"}


def test_what_numpy_writes_is_read(tmp_path):
    np.savez(tmp_path / "plain.npz", **some_arrays())
    assert_same(read_arrays(tmp_path / "plain.npz"), some_arrays())
    np.savez_compressed(tmp_path / "compressed.npz", **some_arrays())
    assert_same(read_arrays(tmp_path / "compressed.npz"), some_arrays())


def test_equal_arrays_give_equal_bytes(tmp_path):
    array = np.arange(6, dtype=np.float32).reshape(2, 3)
    for number, same in enumerate((array, array.T.copy().T)):
        write_npz(tmp_path / f"{number}.npz", {"a": same})
        write_safetensors(tmp_path / f"{number}.safetensors", {"a": same})
    for ending in ENDINGS:
        assert (tmp_path / f"0{ending}").read_bytes() == (tmp_path / f"1{ending}").read_bytes()


@pytest.mark.parametrize("ending", ENDINGS)
@pytest.mark.parametrize("dtype", [np.float16, np.float64, ml_dtypes.bfloat16])
def test_other_floats_become_float32(tmp_path, ending, dtype):
    values = np.array([[1.5, -2.0, 0.25]], dtype)
    path = tmp_path / f"w{ending}"
    np.savez(path, a=values) if ending == ".npz" else safetensors.numpy.save_file({"a": values}, path)
    assert_same(read_arrays(path), {"a": np.array([[1.5, -2.0, 0.25]], np.float32)})


def test_big_endian_is_read(tmp_path):
    np.savez(tmp_path / "w.npz", a=np.array([1.0, 2.0], ">f4"))
    assert_same(read_arrays(tmp_path / "w.npz"), {"a": np.array([1, 2], np.float32)})


@pytest.mark.parametrize("ending", ENDINGS)
def test_integers_are_refused_unless_skipped(tmp_path, ending):
    path = tmp_path / f"w{ending}"
    WRITERS[ending](path, {"a": np.ones(2, np.float32), "opt/count": np.array([3, 4]), "b": np.zeros(1, np.float32)})
    message = refusal(path)
    assert "opt/count" in message
    assert "int64" in message.lower() or "I64" in message
    assert_same(read_arrays(path, skip="opt/.*"), {"a": np.ones(2, np.float32), "b": np.zeros(1, np.float32)})


@pytest.mark.parametrize("array", [np.array(["x", "y"]), np.array([{}, None]), np.array([1j]), np.array([True])])
def test_other_types_are_refused(tmp_path, array):
    np.savez(tmp_path / "w.npz", good=np.ones(2, np.float32), bad=array)
    assert "w.npz: bad is of type" in refusal(tmp_path / "w.npz")


@pytest.mark.parametrize("ending", ENDINGS)
@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf, 1e39])
def test_what_is_not_finite_is_refused(tmp_path, ending, value):
    array = np.zeros(CHUNK + 3, np.float64)
    array[-1] = value
    WRITERS[ending](tmp_path / f"w{ending}", {"fine": np.ones(2, np.float32), "layer/bias": array})
    assert "layer/bias holds NaN or infinity" in refusal(tmp_path / f"w{ending}")


@pytest.mark.parametrize("ending", [".bin", ".pt", ".pth", ".pkl", ".ckpt", ".PT"])
def test_pickles_are_refused_with_the_way_out(tmp_path, ending):
    path = tmp_path / f"w{ending}"
    path.write_bytes(b"cos\nsystem\n(S'touch harmed'\ntR.")
    message = refusal(path)
    assert "pickle" in message
    assert f"torch.load('{path}'" in message
    assert str(tmp_path / "w.safetensors") in message


@pytest.mark.parametrize("name", ["w.h5", "w", "w.txt", "missing.npz", "folder.npz"])
def test_what_is_no_weight_file_is_refused(tmp_path, name):
    (tmp_path / "folder.npz").mkdir()
    message = refusal(tmp_path / name)
    expected = {"missing.npz": "No such file", "folder.npz": "directory"}.get(name, ".npz or .safetensors")
    assert expected in message


@pytest.mark.parametrize("ending", ENDINGS)
@pytest.mark.parametrize("content", [b"", b"PK", b"<html>sign in to download this file</html>", b"\0" * 5000])
def test_foreign_files_are_refused(tmp_path, ending, content):
    path = tmp_path / f"w{ending}"
    path.write_bytes(content)
    assert "not a whole" in refusal(path)


@pytest.mark.parametrize("ending", ENDINGS)
def test_a_file_without_arrays_is_refused(tmp_path, ending):
    WRITERS[ending](tmp_path / f"w{ending}", {})
    assert "no arrays" in refusal(tmp_path / f"w{ending}")


@pytest.mark.parametrize("ending", ENDINGS)
def test_truncated_files_are_refused(tmp_path, ending):
    path = tmp_path / f"w{ending}"
    WRITERS[ending](path, {"a": np.ones((30, 40), np.float32), "b": np.zeros(100, np.float32)})
    whole = path.read_bytes()
    for length in (1, 7, 8, 9, 100, len(whole) // 2, len(whole) - 1):
        path.write_bytes(whole[:length])
        assert "not a whole" in refusal(path)


def test_absurd_npz_headers_are_refused(tmp_path):
    def header(shape, descr="'<f4'"):
        return npy(header=f"{{'descr': {descr}, 'fortran_order': False, 'shape': {shape}}}\n", data=b"\0" * 16)

    path = tmp_path / "w.npz"
    for shape in ("(10**15,)", "(1000000000000000,)", "(2, 3)", "(-2, -2)", "(99999999999, 99999999999, 99999999999)"):
        refusal(zip_of(path, {"a.npy": header(shape)}))
    assert "claims shape (1000000000000000,)" in refusal(zip_of(path, {"a.npy": header("(1000000000000000,)")}))
    refusal(zip_of(path, {"a.npy": header("(4,)", descr="'<f99'")}))
    refusal(zip_of(path, {"a.npy": header("(4,)", descr="[('x', '<f4')]")}))
    refusal(zip_of(path, {"a.npy": header("(" * 5000)}))
    refusal(zip_of(path, {"readme.txt": b"hello"}))
    assert_same(read_arrays(zip_of(path, {"a.npy": header("(4,)")})), {"a": np.zeros(4, np.float32)})


def test_an_npz_member_longer_than_the_file_is_refused(tmp_path):
    path = zip_of(tmp_path / "w.npz", {"a.npy": npy(np.zeros(4, np.float32))})
    header = npy(header="{'descr': '<f4', 'fortran_order': False, 'shape': (250000000000000,)}\n", data=b"\0" * 16)
    zip_of(path, {"a.npy": header})
    claimed = len(header) - 16 + 10**15
    content = path.read_bytes()
    # Both copies of the member's size claim a petabyte, in the format's 64-bit extra field.
    extra = struct.pack("<HHQQ", 1, 16, claimed, claimed)
    start = content.index(b"PK\x01\x02")
    entry = bytearray(content[start : content.index(b"PK\x05\x06")])
    entry[20:28] = b"\xff" * 8
    entry[30:32] = struct.pack("<H", len(extra))
    end = bytearray(content[content.index(b"PK\x05\x06") :])
    end[12:16] = struct.pack("<I", len(entry) + len(extra))
    path.write_bytes(content[:start] + bytes(entry) + extra + bytes(end))
    with zipfile.ZipFile(path) as archive:
        assert archive.getinfo("a.npy").file_size == claimed
    refusal(path)


def test_absurd_safetensors_headers_are_refused(tmp_path):
    path, eight = tmp_path / "w.safetensors", b"\0" * 8

    def entry(offsets, shape=(2,), dtype="F32"):
        return {"dtype": dtype, "shape": shape, "data_offsets": offsets}

    assert_same(read_arrays(safetensors_of(path, {"a": entry([0, 8])}, eight)), {"a": np.zeros(2, np.float32)})
    for header in (
        {"a": entry([0, 8], shape=[2**62, 2**62])},
        {"a": entry([0, 8], shape=[-2])},
        {"a": entry([0, 800], shape=[200])},
        {"a": entry([8, 0])},
        {"a": entry([0, 8]), "b": entry([0, 8])},
        {"a": entry([0, 8]), "b": entry([4, 12])},
        {"a": entry([0, 8], dtype="F99")},
        {"a": {}},
        [1, 2],
    ):
        assert "not a whole" in refusal(safetensors_of(path, header, eight))
    refusal(safetensors_of(path, {"a": entry([0, 8])}, eight * 2))
    for length in (2**50, 2**63 + 5, 2**64 - 1, 0):
        refusal(safetensors_of(path, {"a": entry([0, 8])}, eight, length=length))


@pytest.mark.parametrize("ending", ENDINGS)
def test_damaged_bytes_never_end_in_another_error(tmp_path, ending):
    path, arrays = tmp_path / f"w{ending}", {"a": np.ones((3, 4), np.float32), "b/c": np.zeros(5, np.float32)}
    WRITERS[ending](path, arrays)
    whole, rng, refused = path.read_bytes(), random.Random(0), 0
    for _ in range(600):
        damaged = bytearray(whole)
        damaged[rng.randrange(len(whole))] ^= 1 << rng.randrange(8)
        path.write_bytes(damaged)
        try:
            read = read_arrays(path)
        except InputError:
            refused += 1
        else:
            assert all(np.isfinite(array).all() for array in read.values())
            if ending == ".npz":
                # The directory at the end has no checksum, so an entry can be lost, but never altered.
                assert_same(read, {name: arrays[name] for name in read})
    assert refused > 100


@pytest.mark.parametrize("ending", ENDINGS)
def test_a_failed_write_leaves_the_old_file(tmp_path, ending):
    path = tmp_path / f"w{ending}"
    WRITERS[ending](path, {"a": np.ones(3, np.float32)})
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 16, limits[1]))
    try:
        with pytest.raises(InputError, match=f"w{ending}: can't be written .*too large"):
            WRITERS[ending](path, {"a": np.ones(1 << 18, np.float32)})
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert_same(read_arrays(path), {"a": np.ones(3, np.float32)})
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("ending", ENDINGS)
def test_a_place_that_can_not_be_written_is_named(tmp_path, ending):
    with pytest.raises(InputError, match="there is no folder '.*nowhere'"):
        WRITERS[ending](tmp_path / "nowhere" / f"w{ending}", {"a": np.ones(3, np.float32)})
    with pytest.raises(InputError, match="can't be written .*No such file or directory"):
        WRITERS[ending](pathlib.Path("/proc") / f"w{ending}", {"a": np.ones(3, np.float32)})
