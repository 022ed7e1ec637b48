"""Fetching from a loopback server that speaks the Hugging Face Hub's protocol."""

import hashlib
import http.server
import json
import re
import threading

import pytest
from huggingface_hub import constants, hf_api

from vit_jax.errors import InputError
from vit_jax.weights.fetch import fetch


class HubHandler(http.server.BaseHTTPRequestHandler):
    """The part of the Hub's protocol that downloads need; `server.repositories` is {repository: {file: bytes}}."""

    commit = "0" * 40

    def do_HEAD(self):
        api = re.match(r"/api/models/(\w+/\w+)(/.*)?$", self.path.partition("?")[0])
        resolve = re.match(r"/(\w+/\w+)/resolve/\w+/(.+)$", self.path)
        repository = (api or resolve)[1]
        files = self.server.repositories.get(repository)
        if files is None:
            return self.answer(404, b"", {"X-Error-Code": "RepoNotFound"})
        if resolve:
            if resolve[2] not in files:
                return self.answer(404, b"", {"X-Error-Code": "EntryNotFound", "X-Repo-Commit": self.commit})
            content = files[resolve[2]]
            etag = f'"{hashlib.sha1(content).hexdigest()}"'
            return self.answer(200, content, {"X-Repo-Commit": self.commit, "ETag": etag})
        if (api[2] or "").startswith("/tree"):
            rows = [dict(type="file", path=name, size=len(data), oid="1") for name, data in files.items()]
        else:
            rows = dict(id=repository, sha=self.commit, siblings=[dict(rfilename=name) for name in files])
        return self.answer(200, json.dumps(rows).encode(), {"Content-Type": "application/json"})

    do_GET = do_HEAD

    def answer(self, status, content, headers):
        self.send_response(status)
        for name, value in {"Content-Length": str(len(content)), **headers}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(content)

    def log_message(self, *_):
        pass


@pytest.fixture
def hub(tmp_path, monkeypatch):
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), HubHandler) as server:
        endpoint = f"http://127.0.0.1:{server.server_port}"
        monkeypatch.setattr(constants, "ENDPOINT", endpoint)
        monkeypatch.setattr(
            constants, "HUGGINGFACE_CO_URL_TEMPLATE", endpoint + "/{repo_id}/resolve/{revision}/{filename}"
        )
        monkeypatch.setattr(hf_api.api, "endpoint", endpoint)
        monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
        server.repositories = {
            "org/vit": {
                **{"model.safetensors": b"weights", "config.json": b"{}"},
                **{"pytorch_model.bin": b"pickle", "tokenizer.json": b"tokens"},
            },
            "org/augreg": {"README.md": b"words", "B_16.npz": b"arrays"},
            "org/several": {"a.npz": b"a", "b.npz": b"b"},
            "org/none": {"README.md": b"words"},
            "org/parts": {
                **{f"model-0000{i}-of-00002.safetensors": b"part" for i in (1, 2)},
                **{"model.safetensors.index.json": b"{}", "config.json": b"{}", "model.bin": b"pickle"},
            },
        }
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield server
        server.shutdown()
        thread.join()


def refusal(where):
    with pytest.raises(InputError) as caught:
        fetch(where)
    assert str(caught.value).startswith(f"{where}: ")
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_the_hub_gives_a_folder_or_a_file(hub):
    folder = fetch("hf://org/vit")
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == {
        "model.safetensors": b"weights",
        "config.json": b"{}",
    }
    assert {path.name for path in fetch("hf://org/parts").iterdir()} == {
        *("model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"),
        *("model.safetensors.index.json", "config.json"),
    }
    also = fetch("hf://org/vit", also=("tokenizer.json", "vocab.json"))
    assert (also / "tokenizer.json").read_bytes() == b"tokens"
    assert fetch("hf://org/augreg").read_bytes() == b"arrays"
    assert fetch("hf://org/several/b.npz").read_bytes() == b"b"


def test_what_the_hub_does_not_have_is_told(hub):
    assert "hf://org/several/a.npz" in refusal("hf://org/several")
    assert "no model.safetensors nor .npz" in refusal("hf://org/none")
    assert "no such repository" in refusal("hf://org/missing")
    assert "no such file" in refusal("hf://org/vit/missing.npz")
    assert "write hf://org/name" in refusal("hf://org")


def test_without_a_connection_the_cache_of_the_hub_is_used(hub):
    folder = fetch("hf://org/vit")
    hub.shutdown()
    hub.server_close()
    assert fetch("hf://org/vit") == folder
    assert "can't be reached" in refusal("hf://org/augreg")
