"""Fetching from a loopback server that behaves correctly, and in ways it should not."""

import concurrent.futures
import contextlib
import http.server
import re
import subprocess
import sys
import threading

import pytest

from vit_jax.errors import InputError
from vit_jax.weights.fetch import fetch

OLD = bytes(range(256)) * 4000
NEW = OLD[::-1] + b"longer"


class Server(http.server.ThreadingHTTPServer):
    """Serves `content` at every path, as the attributes specify. `requests` lists (Range, If-Range, status sent)."""

    daemon_threads = True
    content, etag, status = OLD, '"one"', 200
    ranges, checks_if_range, shift, chunked = True, True, 0, False
    cut = None  # bytes of the body after which the connection closes
    claimed = 0  # bytes by which Content-Length exceeds the body; None: it is not sent
    gate = None  # an event to wait for before the second half of a body

    def __init__(self):
        super().__init__(("127.0.0.1", 0), Handler)
        self.requests, self.paths = [], []
        self.half_sent = threading.Event()
        self.url = f"http://127.0.0.1:{self.server_port}/models/B_16.npz"


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self):
        server, wanted, condition = self.server, self.headers["Range"], self.headers["If-Range"]
        start, status = 0, server.status
        if wanted and server.ranges and (condition == server.etag or not server.checks_if_range):
            start = int(re.fullmatch(r"bytes=(\d+)-", wanted)[1])
            status = 416 if start >= len(server.content) else 206
        server.requests.append((wanted, condition, status))
        server.paths.append(self.path)
        body = server.content[start:] if status in (200, 206) else b"no"
        self.send_response(status)
        self.close_connection = True
        if server.etag:
            self.send_header("ETag", server.etag)
        if status == 206:
            first, size = start + server.shift, len(server.content)
            self.send_header("Content-Range", f"bytes {first}-{size - 1}/{size}")
        if server.chunked:
            self.send_header("Transfer-Encoding", "chunked")
        elif server.claimed is not None:
            self.send_header("Content-Length", str(len(body) + server.claimed))
        self.end_headers()
        sent = body[: server.cut]
        if server.chunked:
            sent = f"{len(body):x}\r\n".encode() + sent + (b"\r\n0\r\n\r\n" if server.cut is None else b"")
        self.wfile.write(sent[: len(sent) // 2])
        self.wfile.flush()
        server.half_sent.set()
        if server.gate is not None:
            server.gate.wait(60)
        with contextlib.suppress(ConnectionError):
            self.wfile.write(sent[len(sent) // 2 :])

    def log_message(self, *_):
        pass


@pytest.fixture
def server(tmp_path, monkeypatch):
    monkeypatch.setenv("VIT_JAX_CACHE", str(tmp_path / "cache"))
    with Server() as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield server
        server.shutdown()
        thread.join()


def refusal(where):
    with pytest.raises(InputError) as caught:
        fetch(where)
    assert "\n" not in str(caught.value)
    assert str(where).partition("?")[0] in str(caught.value)
    return str(caught.value)


def cached(tmp_path):
    """Return the sizes of the cached files, by suffix."""
    files = [path for path in (tmp_path / "cache").iterdir() if path.suffix != ".lock"]
    return {path.suffix: path.stat().st_size for path in files}


def test_a_download_is_whole_named_shown_and_kept(server, tmp_path, capsys):
    path = fetch(server.url)
    assert path.read_bytes() == OLD
    assert path.parent == tmp_path / "cache"
    assert path.name.endswith("-B_16.npz")
    shown = capsys.readouterr().err
    assert "B_16.npz" in shown
    assert "100%" in shown
    assert fetch(server.url) == path
    assert len(server.requests) == 1
    assert cached(tmp_path) == {".npz": len(OLD)}
    other = fetch(server.url.replace("models", "others") + "?key=1")
    assert other != path
    assert other.suffix == ".npz"


def test_what_stopped_half_way_resumes(server, tmp_path):
    server.cut = 300_000
    message = refusal(server.url)
    assert "broke off at 300,000 of 1,024,000 bytes" in message
    assert "run again to resume" in message
    assert cached(tmp_path) == {".part": 300_000, ".tag": 5}
    server.cut = 400_000
    refusal(server.url)
    server.cut = None
    assert fetch(server.url).read_bytes() == OLD
    assert server.requests[1:] == [("bytes=300000-", '"one"', 206), ("bytes=700000-", '"one"', 206)]
    assert cached(tmp_path) == {".npz": len(OLD)}


@pytest.mark.parametrize(
    "changes",
    [
        pytest.param(dict(ranges=False), id="ranges are ignored"),
        pytest.param(dict(content=NEW, etag='"two"'), id="the file has changed"),
        pytest.param(dict(content=NEW, etag='"two"', checks_if_range=False), id="changed, and If-Range is ignored"),
        pytest.param(dict(content=NEW[:1000], etag='"two"', checks_if_range=False), id="now shorter than the part"),
        pytest.param(dict(content=OLD[:300_000]), id="the part was all of it"),
        pytest.param(dict(shift=-7), id="another range is sent"),
    ],
)
def test_what_can_not_be_resumed_starts_over(server, tmp_path, changes):
    server.cut = 300_000
    refusal(server.url)
    server.cut = None
    for name, value in changes.items():
        setattr(server, name, value)
    assert fetch(server.url).read_bytes() == server.content
    assert cached(tmp_path) == {".npz": len(server.content)}


@pytest.mark.parametrize("etag", [None, 'W/"weak"'])
def test_nothing_is_resumed_when_versions_can_not_be_told_apart(server, etag):
    server.cut, server.etag = 300_000, etag
    refusal(server.url)
    server.cut, server.content = None, NEW
    assert fetch(server.url).read_bytes() == NEW
    assert [wanted for wanted, _, _ in server.requests] == [None, None]


def test_a_length_that_is_never_reached_is_refused(server, tmp_path):
    server.claimed = 10
    assert "at 1,024,000 of 1,024,010 bytes" in refusal(server.url)
    assert ".npz" not in cached(tmp_path)


def test_no_length_is_refused(server, tmp_path):
    server.claimed = None
    assert "how long" in refusal(server.url)
    assert ".npz" not in cached(tmp_path)


def test_chunks_are_checked_by_their_own_lengths(server, tmp_path):
    server.chunked, server.cut = True, 5000
    refusal(server.url)
    assert ".npz" not in cached(tmp_path)
    server.cut = None
    assert fetch(server.url).read_bytes() == OLD


@pytest.mark.parametrize(("status", "hint"), [(404, "check the address"), (403, "isn't public"), (503, "later")])
def test_a_refusal_of_the_server_is_told(server, status, hint):
    server.status = status
    message = refusal(server.url + "?signature=secret")
    assert f"answers {status}" in message
    assert hint in message
    assert "secret" not in message


def test_no_server_is_told(server):
    server.shutdown()
    server.server_close()
    assert "refused" in refusal(server.url)


@pytest.mark.parametrize("url", ["http://", "https://:x/a.npz", "https://host:x/a.npz", "http://[::1/a"])
def test_malformed_addresses_are_told(server, url):
    assert "not an address" in refusal(url)


def test_spaces_and_accents_in_an_address(server):
    assert fetch(server.url.replace("B_16", "\u00e9t\u00e9 1")).read_bytes() == OLD
    assert server.paths == ["/models/%C3%A9t%C3%A9%201.npz"]


def test_a_cache_that_can_not_be_made_is_told(server, tmp_path, monkeypatch):
    (tmp_path / "file").touch()
    monkeypatch.setenv("VIT_JAX_CACHE", str(tmp_path / "file" / "cache"))
    with pytest.raises(InputError, match="file/cache: can't keep downloads there .*; set VIT_JAX_CACHE"):
        fetch(server.url)


@pytest.mark.parametrize("killed", [False, True])
def test_two_processes_at_once_bring_it_once(server, tmp_path, killed):
    code = f"from vit_jax.weights.fetch import fetch; print(fetch({server.url!r}))"
    server.gate = threading.Event()
    with (
        subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE) as first,
        concurrent.futures.ThreadPoolExecutor() as pool,
    ):
        try:
            assert server.half_sent.wait(60)
            second = pool.submit(fetch, server.url)
            with pytest.raises(concurrent.futures.TimeoutError):
                second.result(timeout=0.3)
            if killed:
                first.kill()
        finally:
            server.gate.set()
        path = second.result(timeout=60)
        assert first.communicate(timeout=60)[0].decode().strip() == ("" if killed else str(path))
    assert path.read_bytes() == OLD
    assert len(server.requests) == (2 if killed else 1)
    assert cached(tmp_path) == {".npz": len(OLD)}


def test_gs_is_a_public_address(server, monkeypatch):
    monkeypatch.setattr(sys.modules[fetch.__module__], "BUCKETS", server.url.removesuffix("/models/B_16.npz"))
    assert fetch("gs://vit_models/augreg/B 16.npz").read_bytes() == OLD
    assert server.paths == ["/vit_models/augreg/B%2016.npz"]


def test_local_paths(tmp_path, monkeypatch):
    (tmp_path / "ViT-B_16.npz").touch()
    assert fetch(tmp_path / "ViT-B_16.npz") == tmp_path / "ViT-B_16.npz"
    assert fetch(str(tmp_path)) == tmp_path
    monkeypatch.setenv("HOME", str(tmp_path))
    assert fetch("~/ViT-B_16.npz") == tmp_path / "ViT-B_16.npz"
    assert f"did you mean '{tmp_path}/ViT-B_16.npz'?" in refusal(tmp_path / "ViT-B_61.npz")
    assert "did you mean" not in refusal(tmp_path / "zzz")
    assert "nor does its folder" in refusal(tmp_path / "no" / "where.npz")
    assert "s3:// isn't known" in refusal("s3://bucket/file.npz")
