"""Model cards: what they say of a run, and what they keep to themselves."""

import dataclasses
import json

import pytest
from huggingface_hub import ModelCard

from tests.drawn import drawn_model, params_of
from tests.tiny import CONFIG
from vit_jax import card
from vit_jax.card import MARK, curve, render, write_card
from vit_jax.card.facts import results
from vit_jax.config import Augment, Config, Data, Model
from vit_jax.errors import InputError
from vit_jax.runs.directory import Facts, open_workdir

NAMES = ("cat", "dog", "hen|cock")
RECORDS = [
    {"step": 10, "train/loss": 1.5, "train/accuracy": 0.25, "data/bad": 0},
    {"step": 20, "train/loss": 1.0, "val/loss": 1.2, "val/accuracy": 0.75, "val/accuracy_low": 0.7},
    {"step": 30, "train/loss": 0.8, "val/loss": 1.25, "val/accuracy": 0.7, "val/accuracy_low": 0.65},
    {"step": 30, "test/loss": 1.3, "test/accuracy": 0.72, "test/accuracy_low": 0.68, "test/step": 20},
]
for _record in RECORDS[1:]:
    _name = "test" if "test/loss" in _record else "val"
    _record |= {f"{_name}/accuracy_high": _record[f"{_name}/accuracy"] + 0.04, f"{_name}/count": 1234}


def make_run(folder, config=CONFIG, names=NAMES, records=RECORDS, checkpoints=(20, 30)):
    open_workdir(folder, Facts(config, names))
    (folder / "metrics.jsonl").write_text("".join(json.dumps(record) + "\n" for record in records))
    for step in checkpoints:
        (folder / "checkpoints" / str(step)).mkdir(parents=True)
    return folder


def folder_config(**data):
    return dataclasses.replace(CONFIG, data=Data(name="folder", path="/home/me/secret/pets", **data))


def test_what_a_card_says_of_a_run(tmp_path):
    config = dataclasses.replace(folder_config(test="test"), augment=Augment(flip=True, mixup=0.1))
    run = make_run(tmp_path / "run", config)
    path = write_card(run)
    text = path.read_text()
    assert path == run / "README.md"
    count = sum(
        leaf.size
        for leaf in params_of(drawn_model(**vars(CONFIG.model), num_classes=3, image_size=8, channels=1)).values()
    )
    assert f"with {count:,} parameters and 0.00" in text
    assert "8x8 pixels in gray and 3 classes" in text
    assert "- classes: cat, dog, hen\\|cock\n" in text
    assert "| length | 30 steps of 64 pictures |" in text
    assert "| augmentation | central crop, flip, mixup 0.1 |" in text
    assert "learning rate 0.01 (cosine, warm-up 5st), weight decay 0.05" in text
    assert "| regularization | drop_path 0.1 |" in text
    assert "![loss and accuracy over steps](curve.png)" in text
    assert (run / "curve.png").read_bytes().startswith(b"\x89PNG")


def test_results_are_those_of_the_selected_step_and_of_the_last_with_intervals(tmp_path):
    run = make_run(tmp_path / "run", folder_config(test="test"))
    rows = [line for line in write_card(run).read_text().splitlines() if "/accuracy |" in line]
    assert rows == [
        "| val/accuracy | 0.7500 | 0.7000 to 0.7900 | 1,234 | 20 |",
        "| val/accuracy | 0.7000 | 0.6500 to 0.7400 | 1,234 | 30 |",
        "| test/accuracy | 0.7200 | 0.6800 to 0.7600 | 1,234 | 20 |",
    ]
    # A best step whose checkpoint is not kept can't be loaded.
    other = make_run(tmp_path / "other", records=RECORDS[:3], checkpoints=(30,))
    assert "0.7500" not in write_card(other).read_text()


@pytest.mark.parametrize(("metric", "selected"), [("val/ece", 20), ("val/loss", 30), ("val/accuracy", 10)])
def test_the_selected_step_is_that_of_the_checkpoints(tmp_path, metric, selected):
    # Of two that are equal, the later.
    scores = {10: (0.3, 1.0, 0.9), 20: (0.1, 0.5, 0.8), 30: (0.2, 0.5, 0.7), 40: (0.4, 0.6, 0.6)}
    names = ("val/ece", "val/loss", "val/accuracy")
    records = [{"step": step, **dict(zip(names, values, strict=True))} for step, values in scores.items()]
    run = make_run(tmp_path / "run", records=records, checkpoints=scores)
    config = dataclasses.replace(CONFIG, select=metric)
    steps = [row.step for row in results(run, config, records) if row.name == metric]
    assert steps == [str(selected), "40"]


def test_the_header_is_what_the_hub_reads(tmp_path):
    run = make_run(tmp_path / "run", folder_config(test="test"))
    data = ModelCard.load(write_card(run, license="apache-2.0")).data
    assert (data.library_name, data.license, data.pipeline_tag) == ("vit_jax", "apache-2.0", "image-classification")
    assert "vit" in data.tags
    assert data.metrics == ["accuracy"]
    assert data.datasets is None
    (result,) = data.eval_results
    assert (result.dataset_name, result.dataset_split, result.metric_type) == ("pets", "test", "accuracy")
    assert result.metric_value == 0.72
    hub = dataclasses.replace(CONFIG, data=Data(name="hf:org/birds"), init="hf://google/vit-base-patch16-224")
    data = ModelCard.load(write_card(make_run(tmp_path / "hub", hub, records=[]))).data
    assert data.datasets == ["org/birds"]
    assert data.base_model == "google/vit-base-patch16-224"
    assert data.eval_results is None


def test_a_card_names_no_path_of_this_machine(tmp_path):
    config = dataclasses.replace(folder_config(), init="/home/me/secret/B_16.npz")
    text = write_card(make_run(tmp_path / "run", config)).read_text()
    assert "started from `B_16.npz`" in text
    assert "trained on `folder:pets`" in text
    assert "secret" not in text
    assert str(tmp_path) not in text


def test_a_card_is_made_again_but_never_over_words_of_ones_own(tmp_path):
    run = make_run(tmp_path / "run", records=RECORDS[:2])
    first = write_card(run).read_text()
    assert first.rstrip().endswith(MARK)
    make_run(run, checkpoints=())
    assert write_card(run).read_text() != first
    (run / "README.md").write_text("My own words.")
    with pytest.raises(InputError, match="is kept, because it has words of your own") as caught:
        write_card(run)
    assert "\n" not in str(caught.value)
    assert (run / "README.md").read_text() == "My own words."


def test_without_matplotlib_the_curve_is_a_table(tmp_path, monkeypatch):
    monkeypatch.setattr(curve, "find_spec", lambda name: None)
    run = make_run(tmp_path / "run")
    text = write_card(run).read_text()
    assert "| step | train/loss | train/accuracy | val/loss | val/accuracy |\n| --- |" in text
    assert "| 20 | 1.0000 | - | 1.2000 | 0.7500 |\n| 30 | 0.8000 | - | 1.2500 | 0.7000 |\n" in text
    assert not (run / "curve.png").exists()
    many = [{"step": step, "train/loss": 1.0} for step in range(1, 1000)]
    rows = [
        line
        for line in write_card(make_run(tmp_path / "long", records=many)).read_text().splitlines()
        if "| 1.0000" in line
    ]
    assert [row.split()[1] for row in (rows[0], rows[-1])] == ["1", "999"]
    assert len(rows) == 10


def test_a_run_without_results_yet(tmp_path):
    run = make_run(tmp_path / "run", records=[], checkpoints=())
    (run / "metrics.jsonl").unlink()
    text = write_card(run).read_text()
    assert "## Results" not in text
    assert "## Curve" not in text
    assert "0 steps" in text


def test_what_is_no_run_is_refused(tmp_path):
    with pytest.raises(InputError, match="is not a run directory"):
        write_card(tmp_path)
    run = make_run(tmp_path / "run")
    (run / "metrics.jsonl").write_text('{"step": "x"}\n')
    with pytest.raises(InputError, match="a line that is not a metrics record"):
        write_card(run)
    assert not (run / "README.md").exists()


@pytest.mark.parametrize(
    ("name", "kind"),
    [("Ti/16", "A Vision Transformer"), ("R+Ti/16", "A hybrid of ResNet and Transformer"), ("BiT-R50x1", "A ResNet")],
)
def test_cards_of_weights(name, kind):
    config = Config(model=Model(name=name), image_size=64)
    text = render(config, None, 1000, title="t", where="hf://org/t", repository="org/t", format="timm")
    assert f"{kind}, {name}, with" in text
    assert "and 1,000 classes." in text
    assert 'timm.create_model("hf-hub:org/t", pretrained=True)' in text
    assert "scripts/convert.py hf://org/t converted`" in text
    assert "## Recipe" not in text
    assert "trained on" not in text


def test_gflops_are_twice_the_multiply_adds_that_papers_state():
    # 4.6 GFLOPs, each a multiply-add: Touvron et al. (2021), table 5.
    config = Config(model=Model(name="S/16"), image_size=224)
    assert card.facts.model_facts(config, None, 1000)["gflops"] == "9.2"
