"""The tables of rates: patterns, layers, their effect on updates, and how they are printed."""

from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.tiny import CONFIG
from vit_jax import tree
from vit_jax.config import Optim
from vit_jax.errors import InputError
from vit_jax.models import init_params
from vit_jax.optim import build_optimizer
from vit_jax.optim.rates import format_rates, learning_rates, trained_names, weight_decays


def shapes(name="Ti/2", **model):
    facts = replace(CONFIG, model=replace(CONFIG.model, name=name, **model)).model_facts(10)
    return jax.eval_shape(lambda: init_params(jax.random.key(0), **facts))


def test_layers_are_those_of_beit():
    """Layer 0 before the blocks, i + 1 for block i, the last after them; combined with a table."""
    config = Optim(layer_decay=0.5, lr_mults=((r"head/.*", 10.0), (r"blocks/.*/bias", 0.0)))
    rates = learning_rates(config, shapes(depth=3, pool="token", position="learned", embedding_norm=True))
    first = ("embedding/kernel", "embedding/bias", "embedding_norm/scale", "cls", "position/grid", "position/prefix")
    for name in first:
        assert rates[name] == 0.5**4, name
    assert rates["blocks/attn/query/kernel"] == rates["blocks/norm1/scale"] == (0.5**3, 0.5**2, 0.5)
    assert rates["blocks/attn/query/bias"] == 0
    assert rates["norm/scale"] == rates["norm/bias"] == 1
    assert rates["head/kernel"] == rates["head/bias"] == 10


def test_first_pattern_decides():
    rates = learning_rates(Optim(lr_mults=((r"head/.*", 1.0), (r".*", 0.0))), shapes())
    assert {name for name, rate in rates.items() if rate} == {"head/kernel", "head/bias"}
    config = Optim(weight_decay=0.1, decay=((r"head/kernel", 3.0), (r".*/kernel", 1.0)))
    decays = weight_decays(config, shapes())
    assert (decays["head/kernel"], decays["embedding/kernel"], decays["head/bias"]) == (0.1 * 3.0, 0.1, 0)


def test_updates_and_decay_are_multiplied():
    draw = np.random.default_rng(0)
    params, grads = (
        jax.tree.map(lambda x: jnp.array(draw.normal(size=x.shape), jnp.float32), shapes()) for _ in range(2)
    )

    def direction(**options):
        optimizer = build_optimizer(Optim(name="sgd", weight_decay=0.1, clip=None, **options), params)
        return tree.flatten(jax.jit(optimizer.update)(grads, optimizer.init(params), params)[0])

    plain, rated = direction(), direction(layer_decay=0.5, lr_mults=((r"head/.*", 3.0),))
    assert plain.keys() == rated.keys()
    for name, update in rated.items():
        factor = {"embedding": 0.125, "blocks": np.array([0.25, 0.5]), "norm": 1, "head": 3}[name.split("/")[0]]
        expected = np.reshape(factor, (-1, *(1,) * (update.ndim - 1))) * plain[name]
        np.testing.assert_allclose(update, expected.reshape(update.shape), rtol=1e-6, err_msg=name)


TABLE = """
parameter                    decay  learning rate at the peak
blocks/attn/key/bias             0  0.00025 0.0005
blocks/attn/key/kernel        0.05  0.00025 0.0005
"""


def test_table_for_people():
    config = Optim(lr=1e-3, weight_decay=0.05, layer_decay=0.5, lr_mults=((r"embedding/.*", 0.0),))
    text = format_rates(config, shapes())
    lines = text.splitlines()
    assert lines[:3] == TABLE.strip().splitlines()
    assert [line.split() for line in lines if line.startswith(("embedding/kernel", "head/kernel"))] == [
        ["embedding/kernel", "frozen"],
        ["head/kernel", "0.05", "0.001"],
    ]
    assert len(lines) == 1 + len(tree.flatten(shapes()))
    deep = format_rates(config, shapes(depth=40))
    assert max(map(len, deep.splitlines())) <= 120
    assert "9.09e-16 1.82e-15" in deep


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"lr_mults": (("head/kernl", 1.0),)}, r"lr_mults: 'head/kernl' matches .* the nearest is 'head/kernel'"),
        ({"lr_mults": (("kernel", 0.0),)}, r"lr_mults: 'kernel' matches the whole name of no parameter"),
        ({"decay": ((".*/scales", 1.0),)}, r"decay: '\.\*/scales' matches"),
        ({"layer_decay": 0.5, "decay": ()}, r"layer_decay=0.5: the model has no blocks"),
        ({"last_blocks": 0, "decay": ()}, r"last_blocks=0: the model has no blocks; unset it"),
        ({"last_blocks": 3}, r"last_blocks=3: the model has 2 blocks"),
        ({"lr_mults": ((".*", 0.0),)}, r"config.optim freezes every parameter"),
    ],
)
def test_mistakes(options, message):
    params = {"head": {"kernel": jnp.zeros((3, 2))}} if options.get("decay") == () else shapes()
    with pytest.raises(InputError, match=message) as caught:
        build_optimizer(Optim(**options), params)
    assert "\n" not in str(caught.value)


def test_last_blocks_are_those_that_train():
    rates = learning_rates(Optim(last_blocks=2), shapes(depth=3, pool="token", position="learned"))
    for name in ("embedding/kernel", "embedding/bias", "cls", "position/grid", "position/prefix"):
        assert rates[name] == 0, name
    assert rates["blocks/attn/query/kernel"] == rates["blocks/norm1/scale"] == (0, 1, 1)
    assert rates["norm/scale"] == rates["head/kernel"] == 1
    both = learning_rates(Optim(last_blocks=1, layer_decay=0.5, lr_mults=((r"head/.*", 10.0),)), shapes(depth=3))
    assert (both["blocks/norm1/scale"], both["norm/scale"], both["head/bias"]) == ((0, 0, 0.5), 1, 10)
    assert trained_names(Optim(last_blocks=0), shapes()) == {"norm/scale", "norm/bias", "head/kernel", "head/bias"}
    assert learning_rates(Optim(last_blocks=2), shapes(depth=2))["blocks/norm1/scale"] == (1, 1)


@pytest.mark.parametrize("name", ["adamw", "adafactor"])
def test_frozen_blocks_stay_to_the_bit_and_do_not_count_in_the_clipped_norm(name):
    draw = np.random.default_rng(0)
    params, grads = (
        jax.tree.map(lambda x: jnp.array(draw.normal(size=x.shape), jnp.float32), shapes(depth=3)) for _ in range(2)
    )
    params["blocks"]["norm1"]["bias"] = jnp.full_like(params["blocks"]["norm1"]["bias"], -0.0)
    config = Optim(name=name, weight_decay=0.1, decay=((".*", 1.0),), last_blocks=1, clip=0.5)
    moving = tree.select(params, trained_names(config, params))
    optimizer = build_optimizer(config, params)

    @jax.jit
    def steps(grads):
        state, now = optimizer.init(moving), moving
        for _ in range(3):
            updates, state = optimizer.update(tree.select(grads, trained_names(config, params)), state, now)
            now = jax.tree.map(lambda x, update: x - 0.1 * update, now, updates)
        return now

    large = jax.tree.map(lambda x: x.at[:2].mul(1e6) if x.shape[0] == 3 else x, grads)
    found, same = steps(grads), steps(grads | {"blocks": large["blocks"]})
    before = tree.flatten(params)
    for key, array in tree.flatten(found).items():
        frozen = 2 if key.startswith("blocks/") else 0
        assert array[:frozen].tobytes() == before[key][:frozen].tobytes(), key
        assert (array[frozen:] != before[key][frozen:]).any(), key
        np.testing.assert_array_equal(array, tree.flatten(same)[key], err_msg=key)
