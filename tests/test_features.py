"""Features of pictures: every activation and pooling of ViTs, hybrids and ResNets."""

import numpy as np
import pytest
from flax import nnx

from tests.drawn import activations_of, drawn_model
from vit_jax import data
from vit_jax.cluster.sharding import make_mesh
from vit_jax.config import Config, Data, Evaluation, MeshShape
from vit_jax.errors import InputError
from vit_jax.evaluators import Subject
from vit_jax.evaluators.features import make_features
from vit_jax.tasks import build_task

KINDS = {
    "vit": dict(pool="token", registers=2),
    "gap": dict(pool="gap"),
    "hybrid": dict(name="R50+B/16", width=32, depth=2, num_heads=2, mlp_dim=64, resnet=(1, 1), resnet_width=32),
    "bit": dict(name="BiT-R50x1", resnet=(1, 1), resnet_width=32),
}


@pytest.fixture(scope="module")
def subjects():
    found = {}
    for kind, options in KINDS.items():
        model = drawn_model(num_classes=10, image_size=32, **options)
        config = Config(batch=24, image_size=32, model=model.config, data=Data(name="synthetic"))
        graph, state = nnx.split(model)
        task = build_task(config, 10)
        subject = Subject(graph, task, config, data.open_split(config, "test").label_names, make_mesh(MeshShape()))
        found[kind] = model, subject, nnx.to_pure_dict(state)
    return found


@pytest.mark.parametrize(
    ("kind", "text", "expected"),
    [
        ("vit", "pooled", lambda of: of("pooled")),
        ("vit", "logits", lambda of: of("logits")),
        ("vit", "tokens", lambda of: of("tokens")[:, 3:].mean(1)),
        ("vit", "tokens:token", lambda of: of("tokens")[:, 0]),
        ("vit", "block/0:gap", lambda of: of("block/0")[:, 3:].mean(1)),
        ("vit", "embedding", lambda of: of("embedding").mean((1, 2))),
        ("gap", "block/1", lambda of: of("block/1").mean(1)),
        ("hybrid", "stage/0", lambda of: of("stage/0").mean((1, 2))),
        ("bit", "tokens", lambda of: of("tokens").mean(1)),
        ("bit", "stage/1:gap", lambda of: of("stage/1").mean((1, 2))),
    ],
)
def test_features_of_every_picture_once(subjects, kind, text, expected):
    model, subject, params = subjects[kind]
    split = subject.open(Evaluation(split="test[:50]"))
    found = make_features(subject, text)(params, split, iter)
    source = data.open_split(subject.config, "test[:50]")
    name = text.split(":")[0]
    activation = activations_of(model, source.images, (name,))[name]
    np.testing.assert_allclose(found.vectors, expected(lambda _: np.asarray(activation)), atol=1e-5)
    assert found.vectors.dtype == np.float32
    np.testing.assert_array_equal(found.labels, source.labels)


@pytest.mark.parametrize(
    ("kind", "text", "message"),
    [
        ("vit", "polled", "has no activation 'polled'; it has logits, pooled"),
        ("vit", "block/2", "has no activation 'block/2'"),
        ("vit", "block/1:max", "must be NAME, NAME:token or NAME:gap"),
        ("vit", "pooled:gap", "pooled is one vector already; leave out :gap"),
        ("vit", "attention/0", "attention is no feature of a picture"),
        ("vit", "stage/0:token", "there is no class token in stage/0"),
        ("gap", "tokens:token", "there is no class token in tokens of model 'custom/16'; take tokens:gap"),
        ("bit", "tokens:token", "there is no class token in tokens"),
    ],
)
def test_what_is_no_feature_is_refused(subjects, kind, text, message):
    with pytest.raises(InputError, match=message) as caught:
        make_features(subjects[kind][1], text)
    assert str(caught.value).startswith(f"config.evaluators: features={text!r}: ")
    assert "\n" not in str(caught.value)
