"""The benchmark of reading: a table, and the same figures as JSON."""

import json

import numpy as np
import pytest
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
    figures = json.loads(out.read_text())
    assert [(row["source"].split(":")[0], row["threads"]) for row in figures] == [
        ("memory", 1),
        ("memory", 2),
        ("files", 1),
        ("files", 2),
    ]
    assert all(row["images_per_second"] > 0 and row["images_per_cpu_second"] > 0 for row in figures)
    assert len(capsys.readouterr().out.splitlines()) == 6


def test_what_cannot_be_read_is_refused(tmp_path):
    for source, message in ((f"files:{tmp_path}", "has no pictures"), (f"tar:{tmp_path}/none.tar", "can't be read")):
        with pytest.raises(InputError, match=message):
            main(["data", f"--source={source}"])
    with pytest.raises(InputError, match="--threads='two'"):
        main(["data", "--threads=two"])
