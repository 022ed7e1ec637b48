"""Which pictures a command line asks for: files, folders, patterns and lists, in order."""

import io
import os

import pytest

from vit_jax.data.sources.folder import list_pictures as list_folder
from vit_jax.errors import InputError
from vit_jax.prediction.listing import Asked, list_pictures

FILES = ("a/b/1.jpg", "a/b/2.PNG", "a/b.jpg", "a/b-c/x.webp", "a/z.txt", "c.gif", "c/é.bmp", ".git/x.jpg", "a/.x.jpg")


@pytest.fixture
def root(tmp_path, monkeypatch):
    for name in FILES:
        path = tmp_path / "top" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"")
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "y.jpg").write_bytes(b"")
    # As in a data folder, links to folders are followed in the folder itself and not further down.
    for link in ("top/link", "top/a/link"):
        (tmp_path / link).symlink_to(tmp_path / "elsewhere", target_is_directory=True)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def paths(*asked):
    found = list(list_pictures(asked))
    assert all(each.error is None for each in found)
    return [each.path for each in found]


INNER = ["top/a/b-c/x.webp", "top/a/b.jpg", "top/a/b/1.jpg", "top/a/b/2.PNG"]
WALKED = [*INNER, "top/c.gif", "top/c/é.bmp", "top/link/y.jpg"]


def test_folders_are_walked_as_a_data_folder_is(root):
    assert paths("top") == WALKED == sorted(WALKED)
    assert paths("top/") == WALKED
    assert paths(root / "top" / "c") == [str(root / "top" / "c" / "é.bmp")]
    names = list_folder(root / "top", 1).names.tobytes().split(b"\0")[:-1]
    assert [f"top/{os.fsdecode(name)}" for name in names] == [path for path in WALKED if path != "top/c.gif"]


@pytest.mark.parametrize(
    ("pattern", "expected"),
    [
        ("top/a/b/*", ["top/a/b/1.jpg", "top/a/b/2.PNG"]),
        ("top/*.gif", ["top/c.gif"]),
        ("top/**/*.jpg", ["top/a/b.jpg", "top/a/b/1.jpg"]),
        ("top/**/b/?.jpg", ["top/a/b/1.jpg"]),
        ("**/[12].*", ["top/a/b/1.jpg", "top/a/b/2.PNG"]),
        ("top/**", WALKED),
        ("*/a/**", [*INNER, "top/a/link/y.jpg"]),
        ("top/?", [*INNER, "top/a/link/y.jpg", "top/c/é.bmp"]),
        ("top/link/*.jpg", ["top/link/y.jpg"]),
        ("top/a/*.txt", ["top/a/z.txt"]),
    ],
)
def test_patterns(root, pattern, expected):
    assert paths(pattern) == expected
    assert paths(root / pattern) == [str(root / path) for path in expected]


def test_a_name_with_an_asterisk_is_a_file_if_there_is_one(root):
    (root / "a*.jpg").write_bytes(b"")
    (root / "ab.jpg").write_bytes(b"")
    (root / "@list").write_bytes(b"")
    assert paths("a*.jpg", "@list", "missing.jpg") == ["a*.jpg", "@list", "missing.jpg"]


def test_lists(root, monkeypatch):
    (root / "list.txt").write_bytes(b"top/c.gif\r\n\ntop/a/b\nmissing.jpg\n")
    expected = ["top/c.gif", "top/a/b/1.jpg", "top/a/b/2.PNG", "missing.jpg"]
    assert paths("@list.txt", "top/c") == [*expected, "top/c/é.bmp"]
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(b"top/c.gif\n\xff\xfe.jpg")))
    assert paths("-") == ["top/c.gif", os.fsdecode(b"\xff\xfe.jpg")]
    (root / "empty").mkdir()
    (root / "list.txt").write_text("empty\nnone/*.jpg\n")
    assert list(list_pictures(["@list.txt"])) == [
        Asked("empty", "has no pictures"),
        Asked("none/*.jpg", "has no pictures"),
    ]


def test_what_has_no_pictures_is_refused_at_once(root):
    (root / "empty").mkdir()
    for asked in ("empty", "top/*.bmp", "none/**"):
        with pytest.raises(InputError, match="has no pictures"):
            list_pictures(["top", asked])
    with pytest.raises(InputError, match=r"@none.txt: there is no list 'none.txt'"):
        list_pictures(["@none.txt"])


def test_what_cannot_be_listed_is_named(root, monkeypatch):
    scandir, listdir = os.scandir, os.listdir

    def refuse(function):
        def call(path):
            if path == "top/a/b":
                raise PermissionError(13, "Permission denied")
            return function(path)

        return call

    monkeypatch.setattr(os, "scandir", refuse(scandir))
    monkeypatch.setattr(os, "listdir", refuse(listdir))
    refused = Asked("top/a/b", "can't be listed: Permission denied")
    assert list(list_pictures(["top"]))[2] == refused
    assert list(list_pictures(["top/**/*.jpg"])) == [Asked("top/a/b.jpg"), refused]
    with pytest.raises(InputError, match="top/a/b: can't be listed: Permission denied"):
        list_pictures(["top/a/b"])
