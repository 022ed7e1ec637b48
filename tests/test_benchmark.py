"""The benchmarks: a table, with the same figures as JSON and on a page."""

import json
import os
import re
import sys

import numpy as np
import pytest
from bench import report
from benchmark import main
from PIL import Image

from vit_jax.errors import InputError


def test_a_figure_for_each_source_and_number_of_threads(tmp_path, capsys):
    pixels = np.random.default_rng(0).integers(0, 256, (40, 50, 3), dtype=np.uint8)
    for i in range(3):
        Image.fromarray(pixels).save(tmp_path / f"{i}.jpg")
    out = tmp_path / "figures.json"
    options = ["--threads=1,2", "--seconds=0.1", "--batch=8", "--image_size=16", f"--json={out}"]
    main(["data", "--source=memory", f"--source=files:{tmp_path}", *options])
    figures = json.loads(out.read_text())["rows"]
    assert [(row["source"].split(":")[0], row["threads"]) for row in figures] == [
        ("memory", 1),
        ("memory", 2),
        ("files", 1),
        ("files", 2),
    ]
    assert all(row["images/s"] > 0 and row["images/CPU-s"] > 0 for row in figures)
    assert len(capsys.readouterr().out.splitlines()) == 6


def test_what_cannot_be_read_is_refused(tmp_path):
    for source, message in ((f"files:{tmp_path}", "has no pictures"), (f"tar:{tmp_path}/none.tar", "can't be read")):
        with pytest.raises(InputError, match=message):
            main(["data", f"--source={source}"])
    with pytest.raises(InputError, match="--threads='two'"):
        main(["data", "--threads=two"])


def test_attention_by_length(tmp_path, capsys):
    out = tmp_path / "figures.json"
    main(["attention", "--tokens=3,5", "--batch=2", "--heads=2", "--head_dim=4", "--seconds=0.01", f"--json={out}"])
    figures = json.loads(out.read_text())
    assert [(row["tokens"], row["by"]) for row in figures["rows"]] == [(3, "xla"), (5, "xla")]
    assert all(row["forward ms"] > 0 and row["forward and backward ms"] > 0 for row in figures["rows"])
    assert "jax" in figures["machine"]
    assert len(capsys.readouterr().out.splitlines()) == 4


def test_a_forward_pass_is_told_on_a_page(tmp_path):
    page, out = tmp_path / "page.md", tmp_path / "figures.json"
    options = ["--model=Ti/16", "--set=depth=1", "--image_size=32", "--batch=8", "--rounds=1", "--seconds=0.01"]
    main(["infer", *options, f"--json={out}", f"--markdown={page}"])
    (row,) = json.loads(out.read_text())["rows"]
    assert row["images/s"] == pytest.approx(8 / row["ms"] * 1e3)
    assert 0 < row["utilisation"] < 1
    assert page.read_text().count("\n| ") == 3
    assert 0 < row["planned GiB"] < row["peak GiB"] < 8


def test_instructions_are_limited_for_us_and_for_a_peer(monkeypatch):
    monkeypatch.setattr(report, "cpu_isas", lambda: ["avx2", "avx512"])
    for name in ("ATEN_CPU_CAPABILITY", "ONEDNN_MAX_CPU_ISA", "MKL_ENABLE_INSTRUCTIONS"):
        monkeypatch.setenv(name, "")  # So that they are what they were afterwards.
    monkeypatch.setenv("XLA_FLAGS", "--xla_one")
    report.limit_isa("avx2")
    fewer = "--xla_cpu_max_isa=AVX2 --xla_cpu_experimental_ynn_fusion_type=invalid"
    assert os.environ["XLA_FLAGS"] == f"--xla_one {fewer}"
    assert os.environ["ATEN_CPU_CAPABILITY"] == "avx2"
    assert report.describe_machine().count(", avx2)") == 1
    monkeypatch.setenv("XLA_FLAGS", "")
    assert ", avx512)" in report.describe_machine()
    report.limit_isa("avx512")
    assert os.environ["XLA_FLAGS"] == " --xla_cpu_max_isa=AVX512"
    monkeypatch.setattr(report, "cpu_isas", lambda: ["avx2"])
    with pytest.raises(InputError, match="--isa=avx512: this CPU has avx2"):
        report.limit_isa("avx512")


def test_predict_beside_its_forward_pass(tmp_path):
    for i in range(9):
        Image.new("RGB", (20, 30), (i, i, i)).save(tmp_path / f"{i}.jpg")
    out = tmp_path / "figures.json"
    options = ["--model=Ti/16", "--image_size=32", "--batch=1", "--threads=2", "--rounds=1", f"--json={out}"]
    main(["predict", f"--pictures={tmp_path}", *options])
    bare, whole = json.loads(out.read_text())["rows"]
    assert (bare["by"], whole["by"], whole["pictures"]) == ("bare forward pass", "predict", 9)
    assert whole["of the bare forward pass"] == pytest.approx(whole["images/s"] / bare["images/s"])


def test_pictures_of_many_shapes_beside_padded_ones(tmp_path):
    for i, size in enumerate(((20, 60), (60, 20), (40, 40), (40, 40)) * 4):
        Image.new("RGB", size).save(tmp_path / f"{i:02}.png")
    out = tmp_path / "figures.json"
    options = ["--model=mu/8", "--image_size=32", "--packing=32", "--share=2", "--rounds=1", "--seconds=0.01"]
    main(["packing", f"--pictures={tmp_path}", *options, f"--json={out}"])
    rows = {row["pictures"]: row for row in json.loads(out.read_text())["rows"]}
    # Of 16 patches, pictures get 2 x 6, 6 x 2 and 4 x 4.
    assert [rows[name]["patches computed"] for name in ("native", "padded", "packed")] == [16, 36, 16]
    assert rows["native"]["patches of pictures"] == 14
    assert rows["native"]["FLOPs over padded"] < rows["packed"]["FLOPs over padded"] < 1
    with pytest.raises(InputError, match="holds 17 files, fewer than --batch=64"):
        main(["packing", f"--pictures={tmp_path}", "--batch=64"])


def test_what_can_not_be_compared_is_refused():
    for arguments, message in (
        (["trian"], "no benchmark 'trian'; did you mean 'train'?"),
        (["infer", "--vs=timm", "--peer=/none/python"], "--peer=/none/python: no such Python"),
        (["infer", "--vs=timm", "--model=BiT-R50x1"], "--vs=timm: 'BiT-R50x1' can't be compared"),
        (["infer", "--isa=avx1024"], "--isa"),
        (["attention", "--tokens=many"], "--tokens='many'"),
        (["predict", "--pictures=.", "--peer=/none/python"], "--peer=/none/python: no such Python"),
        (["data", "--source=tar:a.tar", "--peer=/none/python"], "--peer=/none/python: no such Python"),
        (["data", f"--peer={sys.executable}"], "--peer: tf.data reads tar:FILE by --crop=random_resized alone"),
        (["data", "--rounds=0", "--threads=1"], "--rounds=0: must be at least 1"),
        (["infer", "--set=dept=1"], "config.model.dept: no such key; did you mean 'depth'"),
    ):
        with pytest.raises(InputError, match=re.escape(message)):
            main(arguments)
