"""Every implementation of attention that runs here agrees with the plain formula, forward and backward."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from vit_jax.architecture import Model
from vit_jax.config import from_dict
from vit_jax.errors import InputError
from vit_jax.models import create_model
from vit_jax.models.attention import IMPLEMENTATIONS, choose, trouble_with

HEADS, HEAD_DIM = 3, 8


def plain(query, key, value, bias):
    """Vaswani et al. (2017), equation 1, in float64."""
    scores = jnp.einsum("bqhd,bkhd->bhqk", query, key) / np.sqrt(query.shape[-1])
    scores = scores if bias is None else scores + bias
    weights = jnp.exp(scores - scores.max(-1, keepdims=True))
    return jnp.einsum("bhqk,bkhd->bqhd", weights / weights.sum(-1, keepdims=True), value)


def cases():
    """Yield what has to run on this device; cuDNN takes half precision alone, and a bias of even lengths alone."""
    names = IMPLEMENTATIONS if jax.default_backend() == "gpu" else ["xla"]
    for case in itertools.product(names, [1, 50, 196, 197, 201, 577], [False, True], ["float32", "bfloat16"]):
        name, tokens, biased, dtype = case
        if name == "xla" or (dtype == "bfloat16" and not (biased and tokens % 2)):
            yield case


@pytest.mark.parametrize(("name", "tokens", "biased", "dtype"), list(cases()))
def test_every_implementation_agrees_with_the_formula(name, tokens, biased, dtype):
    rng = np.random.default_rng(tokens)
    inputs = [rng.normal(size=(2, tokens, HEADS, HEAD_DIM)) for _ in range(3)]
    bias = rng.normal(size=(1, HEADS, tokens, tokens)) if biased else None
    weights = rng.normal(size=inputs[0].shape)

    def both(attend, dtype):
        inputs_, bias_ = ([jnp.asarray(x, dtype) for x in inputs], None if bias is None else jnp.asarray(bias, dtype))
        out, back = jax.vjp(lambda *args: attend(*args, bias_), *inputs_)
        return [np.asarray(x, np.float64) for x in (out, *back(jnp.asarray(weights, dtype)))]

    with jax.enable_x64(True):
        # The same inputs, rounded: what is compared is the arithmetic.
        inputs = [np.asarray(jnp.asarray(x, dtype), np.float64) for x in inputs]
        bias = None if bias is None else np.asarray(jnp.asarray(bias, dtype), np.float64)
        weights = np.asarray(jnp.asarray(weights, dtype), np.float64)
        wanted = both(plain, "float64")
    tolerance = 1e-5 if dtype == "float32" else 1e-2
    for ours, right in zip(both(IMPLEMENTATIONS[name], dtype), wanted, strict=True):
        assert np.abs(ours - right).max() <= tolerance * np.abs(right).max()


def test_auto_is_what_runs_here():
    query = jnp.ones((1, 197, 3, 64), "bfloat16")
    chosen = choose("auto", query, query, biased=False)
    assert not trouble_with(chosen, 197, 197, 3, 64, "bfloat16", False)
    assert chosen == ("cudnn" if jax.default_backend() == "gpu" else "xla")


@pytest.mark.skipif(jax.default_backend() == "gpu", reason="it may run on this device")
def test_what_does_not_run_says_why():
    assert "cuDNN" in trouble_with("cudnn", 197, 197, 3, 64, "bfloat16", False)
    model = create_model("Ti/16", num_classes=3, image_size=32, depth=1, attention="cudnn")
    with pytest.raises(Exception, match="fp16/bf16|cuDNN"):
        model(jnp.zeros((1, 32, 32, 3)))


def test_an_implementation_that_does_not_exist_is_refused():
    with pytest.raises(InputError, match="flash"):
        from_dict({"model": {"attention": "flash"}})
    assert Model().attention == "auto"
