"""Publishing: what is assembled, and pushing to a loopback server that speaks the Hugging Face Hub's protocol."""

import base64
import http.server
import json
import re
import threading

import huggingface_hub
import numpy as np
import publish
import pytest
from huggingface_hub import constants, hf_api

import vit_jax
from tests.drawn import drawn_model, logits_of, pictures
from tests.tiny import FILE
from vit_jax import train
from vit_jax.errors import InputError


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    path = tmp_path_factory.mktemp("weights") / "model.safetensors"
    vit_jax.save(drawn_model(), path)
    (path.parent / "labels.txt").write_text("a\nb\nc\nd\ne\nf\ng\n")
    return path


class HubHandler(http.server.BaseHTTPRequestHandler):
    """The part of the Hub's protocol that an upload of small files needs; `server.status` is what it answers."""

    def do_GET(self):
        self.answer({"modelId": "me/vit", "id": "me/vit", "sha": "0" * 40, "siblings": []})

    def do_POST(self):
        content = self.rfile.read(int(self.headers["Content-Length"]))
        address = f"{constants.ENDPOINT}/me/vit"
        if self.path == "/api/repos/create":
            self.server.created = json.loads(content)
            self.answer({"url": address})
        elif self.path == "/api/validate-yaml":
            self.answer({"errors": [], "warnings": []})
        elif "/preupload/" in self.path:
            files = [
                {"path": file["path"], "uploadMode": "regular", "shouldIgnore": False, "oid": None}
                for file in json.loads(content)["files"]
            ]
            self.answer({"files": files})
        else:
            lines = [json.loads(line) for line in content.splitlines()]
            files = [line["value"] for line in lines if line["key"] == "file"]
            self.server.files |= {file["path"]: base64.b64decode(file["content"]) for file in files}
            self.answer({"success": True, "commitOid": "0" * 40, "commitUrl": f"{address}/commit/0"})

    def answer(self, content):
        data = json.dumps(content).encode()
        self.send_response(self.server.status)
        if self.server.status == 404:
            self.send_header("X-Error-Code", "RepoNotFound")
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, *_):
        pass


@pytest.fixture
def hub(monkeypatch):
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), HubHandler) as server:
        endpoint = f"http://127.0.0.1:{server.server_port}"
        monkeypatch.setattr(constants, "ENDPOINT", endpoint)
        monkeypatch.setattr(hf_api.api, "endpoint", endpoint)
        monkeypatch.setattr(huggingface_hub, "get_token", lambda: "hf_test")
        monkeypatch.setattr(hf_api, "get_token", lambda: "hf_test", raising=False)
        server.status, server.files, server.created = 200, {}, None
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield server
        server.shutdown()
        thread.join()


def test_without_push_it_shows_what_it_would_upload(weights, capsys, monkeypatch):
    monkeypatch.setattr(publish, "push", lambda *_, **__: pytest.fail("pushed"))
    publish.main([str(weights), "me/vit", f"--labels={weights.parent}/labels.txt"])
    shown = capsys.readouterr().out
    files = re.findall(r"^ *([\d,]+)  (\S+)$", shown, re.MULTILINE)
    assert {name for _, name in files} >= {"README.md", "config.json", "model.safetensors", "labels.txt"}
    assert ("14", "labels.txt") in files
    assert "license: not stated" in shown
    assert shown.endswith(f"{len(files)} files for me/vit, nothing uploaded; add --push\n")


@pytest.mark.parametrize(
    ("options", "format"),
    [
        ({}, "huggingface"),
        ({"pool": "map", "gelu": "exact"}, "timm"),
        ({"position": "sincos2d", "pool": "gap", "layer_scale": 0.1, "gelu": "exact"}, "timm"),
        ({"name": "BiT-custom", "resnet": (1, 2), "resnet_width": 32}, "google"),
    ],
)
def test_the_first_format_that_holds_the_model(tmp_path, options, format):
    model = drawn_model(**options)
    opened = publish.Opened(model, publish.Config(model=model.config, image_size=64), None, "", False)
    found, lines = publish._save(opened, tmp_path, None)
    assert found == format, lines
    tried = list(publish.FORMATS)[: list(publish.FORMATS).index(format)]
    assert [line.partition(":")[0] for line in lines] == [*(f"not {name}" for name in tried), "format"]
    again = vit_jax.load(tmp_path / publish.FORMATS[format])
    found, wanted = (logits_of(one, pictures()) for one in (again, model))
    np.testing.assert_allclose(found, wanted, rtol=1e-4, atol=1e-4)


def test_a_run(tmp_path, capsys):
    (tmp_path / "tiny.py").write_text(FILE)
    run = tmp_path / "run"
    train.main([f"--config={tmp_path}/tiny.py", f"--workdir={run}", "--config.total=2st"])
    (tmp_path / "out").mkdir()
    publish.assemble(str(run), tmp_path / "out", "me/digits", format="timm", license="mit")
    assert (tmp_path / "out" / "labels.txt").read_text().split() == list("0123456789")
    card = (tmp_path / "out" / "README.md").read_text()
    assert "license: mit\n" in card
    assert "hf-hub:me/digits" in card
    assert "| val/accuracy |" in card
    assert json.loads((tmp_path / "out" / "training.json").read_text())["optim"]["lr"] == 0.01
    assert str(tmp_path) not in "".join(path.read_text() for path in (tmp_path / "out").glob("*.[jmt]*"))
    model, again = vit_jax.load(run), vit_jax.load(tmp_path / "out")
    images = pictures(8, 8, channels=1)
    np.testing.assert_allclose(logits_of(again, images), logits_of(model, images), atol=1e-5)
    # --card writes into the run directory; a card of one's own goes along as it is.
    capsys.readouterr()
    publish.main([str(run), "--card"])
    assert capsys.readouterr().out == f"{run}/README.md\n"
    (run / "README.md").write_text("My own words.")
    lines = publish.assemble(str(run), tmp_path / "out", "me/digits", format="timm")
    assert any("which has words of your own" in line for line in lines)
    assert (tmp_path / "out" / "README.md").read_text() == "My own words."


def test_push_uploads_the_folder_in_one_commit(hub, weights, capsys):
    publish.main([str(weights), "me/vit", "--push", "--create", "--private"])
    assert hub.created["name"] == "vit"
    assert hub.created["visibility"] == "private"
    assert hub.files["README.md"].startswith(b"---\nlibrary_name: vit_jax\n")
    assert len(hub.files["model.safetensors"]) > 4 * 40_000
    assert capsys.readouterr().out.endswith("/me/vit/commit/0\n")


def test_the_hub_s_refusals_are_one_line(hub, weights, tmp_path, monkeypatch):
    (tmp_path / "README.md").write_text("words")

    def refusal(repository="me/vit"):
        with pytest.raises(InputError) as caught:
            publish.push(tmp_path, repository, create=False, private=False)
        assert "\n" not in str(caught.value)
        assert str(caught.value).startswith(f"{repository}: not")
        return str(caught.value)

    hub.status = 404
    assert "there is no such repository" in refusal()
    hub.status = 403
    assert "the token may not write there (403)" in refusal()
    assert "Repo id must" in refusal("me/--")
    hub.shutdown()
    hub.server_close()
    assert "the Hub can't be reached" in refusal()
    monkeypatch.setattr(huggingface_hub, "get_token", lambda: None)
    assert "not logged in; run `hf auth login`" in refusal()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["model.npz"], "the repository: must be org/name"),
        (["model.npz", "name"], "name: must be org/name"),
        (["none.npz", "me/vit"], "none.npz: does not exist"),
        (["none", "--card"], "'none' is not a run directory"),
    ],
)
def test_mistakes(tmp_path, monkeypatch, arguments, message):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InputError, match=re.escape(message)):
        publish.main(arguments)
