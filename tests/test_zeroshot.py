"""Zero-shot classification: `predict` and `evaluate` by texts, with the probabilities that Transformers gives."""

import json

import jax
import numpy as np
import pytest
from PIL import Image

import vit_jax
from tests.golden import DATA
from tests.test_bad_input import refusal
from tests.test_text import EXPECTED, LABELS, TEXT
from vit_jax import evaluate, predict
from vit_jax.config import Data, Evaluation
from vit_jax.errors import InputError
from vit_jax.evaluators import evaluate_model
from vit_jax.export import export_model
from vit_jax.export.stablehlo import run
from vit_jax.labels import imagenet_ids, parse_names, spoken
from vit_jax.weights.opened import open_model
from vit_jax.weights.zeroshot import embed_labels, open_head

PROMPTS = ("a photo of a {}.", "{} at night")


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    """The three pictures of the reference figures, in a folder for each of three classes, and the labels in a file."""
    root = tmp_path_factory.mktemp("zeroshot")
    for number, pixels in enumerate(EXPECTED["pictures"]):
        folder = root / "pictures/test" / ("cat", "dog", "boat")[number]
        folder.mkdir(parents=True)
        # Of the model's own size, so that nothing is resized.
        Image.fromarray(pixels).save(folder / f"{number}.png")
    (root / "labels.txt").write_text("\n".join(LABELS) + "\n")
    return root


def pictures(root):
    return sorted((root / "pictures").rglob("*.png"), key=lambda path: path.name)


@pytest.mark.parametrize("folder", ["clip", "siglip"])
def test_the_command_gives_the_owners_probabilities(root, tmp_path, folder):
    arguments = [f"--model={TEXT / folder}", f"--labels={root}/labels.txt", f"--out={tmp_path}/x.jsonl", "--batch=1"]
    predict.main([*arguments, *map(str, pictures(root))])
    rows = [json.loads(line) for line in (tmp_path / "x.jsonl").read_text().splitlines()]
    found = [{row[f"label_{i}"]: row[f"probability_{i}"] for i in range(1, 5)} for row in rows]
    found = [[row[label] for label in LABELS] for row in found]
    np.testing.assert_allclose(found, EXPECTED[f"{folder}/probabilities"], rtol=1e-5)


def test_labels_between_commas_and_prompts(root):
    rows = predict.predict(TEXT / "siglip", pictures(root), labels="dog, boat", templates=PROMPTS)
    pair = vit_jax.load(TEXT / "siglip", text=True)
    texts = embed_labels(pair, ["a photo of a dog.", "dog at night", "a photo of a boat.", "boat at night"])
    mean = texts.reshape(2, 2, -1).mean(axis=1)
    mean /= np.linalg.norm(mean, axis=1, keepdims=True)
    np.testing.assert_allclose(embed_labels(pair, ["dog", "boat"], PROMPTS), mean, rtol=1e-5, atol=1e-6)
    expected = np.asarray(pair.probabilities(EXPECTED["siglip/images"], mean))
    for row, (dog, boat) in zip(rows, expected, strict=True):
        assert dict(row.classes) == pytest.approx({"dog": dog, "boat": boat}, rel=1e-5)


def test_more_prompts_than_are_encoded_at_a_time():
    pair = vit_jax.load(TEXT / "clip", text=True)
    labels = [f"boat {number}" for number in range(70)]
    found = embed_labels(pair, labels)
    np.testing.assert_allclose(found[[0, 69]], embed_labels(pair, [labels[0], labels[69]]), atol=1e-6)


def test_such_a_model_is_exported_but_not_saved(tmp_path):
    opened = open_model(TEXT / "siglip", labels="a cat,a dog")
    export_model(opened, tmp_path / "x.stablehlo", "probabilities")
    logits = np.asarray(jax.jit(opened.model)(EXPECTED["pictures"]))
    found = run((tmp_path / "x.stablehlo").read_bytes(), EXPECTED["pictures"])
    np.testing.assert_allclose(found, 1 / (1 + np.exp(-logits)), rtol=1e-5)
    assert json.loads((tmp_path / "x.stablehlo.json").read_text())["labels"] == ["a cat", "a dog"]
    with pytest.raises(InputError, match="no format of weights holds texts as a head; export it"):
        vit_jax.save(opened.model, tmp_path / "x.safetensors")


ZEROSHOT = "--config.evaluators.zs.evaluator=zeroshot"


def test_accuracy_by_names_is_that_of_the_probabilities(root, capsys):
    evaluate.main([f"--model={TEXT / 'clip'}", f"--data=folder:{root}/pictures", ZEROSHOT])
    found = json.loads(capsys.readouterr().out)
    rows = predict.predict(TEXT / "clip", pictures(root), labels="cat,dog,boat", templates=["a photo of a {}."])
    right = [row.classes[0][0] == name for row, name in zip(rows, ("cat", "dog", "boat"), strict=True)]
    assert 0 < sum(right) < 3
    assert found == {"zs/accuracy": pytest.approx(sum(right) / 3), "zs/count": 3}
    # As labels of the model, its classes are matched with the data's by name.
    results = evaluate.evaluate(TEXT / "clip", data=f"folder:{root}/pictures", labels="boat,cat,dog,owl")
    assert results.scalars["val/count"] == 3


def test_another_pair_reads_the_names_of_a_model_trained_on(root):
    model = vit_jax.load(TEXT / "clip", num_classes=3)
    data = Data(name="folder", path=str(root / "pictures"))
    own = {"zs": Evaluation("zeroshot", text=str(TEXT / "clip"), templates=("{}",))}
    found = evaluate_model(model, ("boat", "cat", "dog"), data, evaluators=own, text_head=open_head)
    assert found.tables["zs/texts"][0] == {"label": "boat", "text": "boat"}
    assert found.scalars["zs/count"] == 3
    with pytest.raises(InputError, match="zeroshot needs text_head="):
        evaluate_model(model, ("boat", "cat", "dog"), data, evaluators=own)


def test_the_model_must_be_like_the_pairs_image_tower(root):
    keys = {"evaluators.zs.evaluator": "zeroshot"}
    with pytest.raises(InputError, match="hf_vit: has no text tower"):
        evaluate.evaluate(DATA / "hf_vit", keys, data=f"folder:{root}/pictures")
    keys |= {"evaluators.zs.text": str(TEXT / "clip")}
    with pytest.raises(InputError, match="features are 32 wide, those that go with the texts 16; text= must name"):
        evaluate.evaluate(DATA / "hf_vit", keys, data=f"folder:{root}/pictures")
    # Labels of the model's own change nothing for the evaluator.
    found = evaluate.evaluate(TEXT / "clip", keys, data=f"folder:{root}/pictures", labels="x,y")
    assert found.scalars["zs/count"] == 3


def test_names_are_spoken():
    ids = imagenet_ids(1000)
    assert spoken(ids)[:2] == ("tench", "goldfish")
    assert len(set(spoken(ids))) == 1000
    assert spoken(("n01440764", "n02012849")) == ("tench", "crane")
    assert spoken(("cat", "n01440764")) == ("cat", "n01440764")


def test_names_between_commas(tmp_path):
    assert parse_names("a cat, a dog") == ("a cat", "a dog")
    assert parse_names("a cat") == ("a cat",)
    # Longer than the name of any file may be.
    assert len(parse_names(",".join(f"boat {number}" for number in range(1000)))) == 1000
    (tmp_path / "names, all.txt").write_text("x\ny\n")
    assert parse_names(str(tmp_path / "names, all.txt")) == parse_names(tmp_path / "names, all.txt") == ("x", "y")


@pytest.mark.parametrize(
    ("model", "arguments", "message"),
    [
        ("clip", ["--labels=a cat,,a dog"], "labels 'a cat,,a dog': name 2 is empty"),
        ("clip", ["--labels=a cat,a dog,a cat"], "'a cat' is there twice"),
        ("clip", ["--labels=nowhere.txt"], "nowhere.txt: can't be read (No such file"),
        ("clip", ["--labels=a cat"], "one label alone always has probability 1"),
        (
            "clip",
            ["--labels=a cat,a dog", "--template=a photo"],
            "template 'a photo': needs '{}', once, where the label",
        ),
        ("clip", ["--labels=a cat,a dog", "--template={} {}"], "template '{} {}': needs '{}', once"),
        ("clip", ["--template=a {}"], "template 'a {}': only the labels of a CLIP or SigLIP"),
        ("clip", [], "has no head that tells classes"),
        ("../weights/hf_vit", ["--labels=a cat,a dog", "--template=a {}"], "only the labels of a CLIP or SigLIP"),
        ("../weights/hf_vit", ["--labels=a cat,a dog"], "has 2 names, but the model has"),
        ("../weights/today/hf_clip", ["--labels=a cat,a dog"], "has no text tower to read texts or labels with"),
    ],
)
def test_mistakes_end_in_one_line(root, capfd, model, arguments, message):
    told = refusal(capfd, predict.main, f"--model={TEXT / model}", *arguments, pictures(root)[0])
    assert message in told
