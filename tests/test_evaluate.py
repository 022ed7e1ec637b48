"""The command that evaluates a run, or weights on any data."""

import json

import pytest

from tests.drawn import drawn_model
from tests.test_data import write_folder
from tests.tiny import FILE
from vit_jax import evaluate, save, train
from vit_jax.errors import InputError


@pytest.fixture
def weights(tmp_path):
    save(drawn_model(num_classes=2, image_size=16), tmp_path / "weights.npz")
    return tmp_path / "weights.npz"


def run(capsys, *arguments: object) -> dict:
    evaluate.main(list(map(str, arguments)))
    return json.loads(capsys.readouterr().out)


def test_weights_are_evaluated_on_a_folder_by_the_names_of_its_classes(weights, tmp_path, capsys):
    write_folder(tmp_path / "pictures", per_class=20)
    found = {}
    for names in ("cat\ndog", "dog\ncat"):
        (tmp_path / "names.txt").write_text(names)
        labels = f"--labels={tmp_path / 'names.txt'}"
        found[names] = run(capsys, f"--model={weights}", f"--data=folder:{tmp_path / 'pictures'}", labels)
    assert all(result["val/count"] == 40 for result in found.values())
    first, second = (result["val/accuracy"] for result in found.values())
    assert first == pytest.approx(1 - second)
    assert first != second


def test_size_and_split_may_be_others(weights, tmp_path, capsys):
    write_folder(tmp_path / "pictures", per_class=5, splits=("holiday",))
    (tmp_path / "names.txt").write_text("cat\ndog\nfish")
    common = (f"--model={weights}", f"--data=folder:{tmp_path / 'pictures'}", "--split=holiday")
    with pytest.raises(InputError, match=r"names.txt: has 3 names, but the model has 2 outputs"):
        run(capsys, *common, f"--labels={tmp_path / 'names.txt'}")
    with pytest.raises(InputError, match=r"'cat', 'dog'.*lacks.*--labels=FILE"):
        run(capsys, *common)
    (tmp_path / "names.txt").write_text("cat\ndog\n")
    out = tmp_path / "found"
    found = run(capsys, *common, f"--labels={tmp_path / 'names.txt'}", "--image_size=32,16", f"--out={out}")
    assert found["val/count"] == 10
    assert json.loads((out / "val.json").read_text())["accuracy"] == found["val/accuracy"]
    with pytest.raises(InputError, match="can't be written: there is no folder"):
        run(capsys, *common, f"--out={tmp_path / 'nowhere' / 'found'}")


def test_weights_need_data(weights):
    with pytest.raises(InputError, match="weights don't say what to evaluate them on; give --data=folder:DIR"):
        evaluate.main([f"--model={weights}"])


def test_a_run_may_be_evaluated_on_other_data(tmp_path, capsys):
    (tmp_path / "tiny.py").write_text(FILE)
    train.main([f"--config={tmp_path / 'tiny.py'}", f"--workdir={tmp_path / 'run'}", "--config.total=2st"])
    capsys.readouterr()
    own = run(capsys, f"--workdir={tmp_path / 'run'}")
    assert own["val/count"] == 360
    part = run(capsys, f"--model={tmp_path / 'run'}", "--data=digits", "--split=train[:10%]")
    assert part["val/count"] == 144
    with pytest.raises(InputError, match="evaluation can't change these keys of a run: model.gelu: 'tanh' -> 'exact'"):
        run(capsys, f"--workdir={tmp_path / 'run'}", "--config.model.gelu=exact")


def test_weights_have_no_checkpoints_to_choose_from(weights):
    with pytest.raises(InputError, match="has no checkpoints to choose 'best' from: it is not a run directory"):
        evaluate.main([f"--model={weights}", "--data=digits", "--checkpoint=best"])
