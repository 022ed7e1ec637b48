"""Every implementation of attention that runs here agrees with the plain formula, forward and backward."""

import itertools
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from vit_jax.config import Model, from_dict
from vit_jax.errors import InputError
from vit_jax.models import attention, create_model
from vit_jax.models.attention import IMPLEMENTATIONS, choose, trouble_with

HEADS, HEAD_DIM = 3, 8


def plain(query, key, value, bias):
    """Vaswani et al. (2017), equation 1, in float64."""
    scores = jnp.einsum("bqhd,bkhd->bhqk", query, key) / np.sqrt(query.shape[-1])
    scores = scores if bias is None else scores + bias
    weights = jnp.exp(scores - scores.max(-1, keepdims=True))
    return jnp.einsum("bhqk,bkhd->bqhd", weights / weights.sum(-1, keepdims=True), value)


def cases():
    """Yield the cases that must run on this device; cuDNN only takes half precision."""
    names = IMPLEMENTATIONS if jax.default_backend() == "gpu" else ["xla"]
    for case in itertools.product(names, [1, 50, 196, 197, 201, 577], [False, True], ["float32", "bfloat16"]):
        if case[0] == "xla" or case[3] == "bfloat16":
            yield case


@pytest.mark.parametrize(("name", "tokens", "biased", "dtype"), list(cases()))
def test_every_implementation_agrees_with_the_formula(name, tokens, biased, dtype):
    rng = np.random.default_rng(tokens)
    _, masked = choose(name, tokens, HEADS, HEAD_DIM, dtype, biased)
    inputs = [rng.normal(size=(2, tokens + masked, HEADS, HEAD_DIM)) for _ in range(3)]
    bias = rng.normal(size=(1, HEADS, tokens + masked, tokens + masked)) if biased else None
    weights = rng.normal(size=inputs[0].shape)
    weights[:, tokens:] = 0

    def both(attend, dtype, number, **length):
        inputs_ = [jnp.asarray(x[:, :number], dtype) for x in inputs]
        bias_ = None if bias is None else jnp.asarray(bias[..., :number, :number], dtype)
        out, back = jax.vjp(lambda *args: attend(*args, bias_, **length), *inputs_)
        results = (out, *back(jnp.asarray(weights[:, :number], dtype)))
        return [np.asarray(x[:, :tokens], np.float64) for x in results]

    with jax.enable_x64(True):
        # The same rounded inputs, so that only the arithmetic is compared.
        inputs = [np.asarray(jnp.asarray(x, dtype), np.float64) for x in inputs]
        bias = None if bias is None else np.asarray(jnp.asarray(bias, dtype), np.float64)
        weights = np.asarray(jnp.asarray(weights, dtype), np.float64)
        wanted = both(plain, "float64", tokens)
    tolerance = 1e-5 if dtype == "float32" else 1e-2
    ours = both(IMPLEMENTATIONS[name], dtype, tokens + masked, length=tokens if masked else None)
    for our, right in zip(ours, wanted, strict=True):
        assert np.abs(our - right).max() <= tolerance * np.abs(right).max()


@pytest.mark.parametrize("position", ["learned", "relative"])
def test_masked_tokens_change_nothing(monkeypatch, position):
    """Fused attention that needs an even number of tokens gets one more."""
    options = dict(depth=2, width=32, num_heads=2, mlp_dim=48, position=position, position_at="blocks")
    model = create_model("custom/8", num_classes=3, image_size=16, **options)
    images = jax.random.normal(jax.random.key(0), (2, 16, 16, 3))
    graph, params = nnx.split(model)
    # The head starts at zero, which would stop all gradients below it.
    params = jax.tree.map(lambda x: x + 0.1 * jax.random.normal(jax.random.key(1), x.shape), params)

    def results():
        def total(params):
            activations = nnx.merge(graph, params).activations(images, "embedding", "block/0", "block/1", "tokens")
            return (nnx.merge(graph, params)(images) ** 2).sum(), activations

        return jax.tree.leaves(jax.value_and_grad(total, has_aux=True)(params))

    plain = results()
    monkeypatch.setattr(attention, "choose", lambda *_, **__: ("xla", 1))
    for masked, right in zip(results(), plain, strict=True):
        assert masked.shape == right.shape
        np.testing.assert_allclose(masked, right, rtol=1e-5, atol=1e-5)


def test_auto_is_what_runs_here():
    chosen, masked = choose("auto", 197, 3, 64, "bfloat16", biased=False)
    assert not trouble_with(chosen, 197 + masked, 3, 64, "bfloat16", False)
    assert (chosen, masked) == (("cudnn", 1) if jax.default_backend() == "gpu" else ("xla", 0))


@pytest.mark.skipif(jax.default_backend() == "gpu", reason="it may run on this device")
def test_what_does_not_run_says_why():
    # The second message comes from JAX's GPU plugin, when it is installed but there is no GPU.
    assert re.search("cuDNN|dot_product_attention.* not found", trouble_with("cudnn", 198, 3, 64, "bfloat16", False))
    model = create_model("Ti/16", num_classes=3, image_size=32, depth=1, attention="cudnn")
    with pytest.raises(Exception, match="fp16/bf16|cuDNN|not found"):
        model(jnp.zeros((1, 32, 32, 3)))


def test_auto_tries_while_the_step_is_traced_and_falls_back(monkeypatch):
    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
    model = create_model("Ti/16", num_classes=3, image_size=32, depth=1, dtype="bfloat16")

    def traced() -> str:
        return str(jax.jit(lambda images: model(images)).trace(jnp.zeros((1, 32, 32, 3))).jaxpr)

    with pytest.warns(UserWarning, match="attention of 5 tokens isn't fused: cuDNN"):
        unfused = traced()
    monkeypatch.setitem(IMPLEMENTATIONS, "cudnn", IMPLEMENTATIONS["xla"])  # As if it ran here.
    trouble_with.cache_clear()
    fused = traced()
    trouble_with.cache_clear()
    assert ["[1,6,3,64]" in program for program in (unfused, fused)] == [False, True]  # One token more than 5.


def test_what_computes_something_else_is_found_out(monkeypatch):
    def wrong(query, key, value, bias=None, length=None):
        return IMPLEMENTATIONS["xla"](query, key, value, bias)  # Ignores the mask.

    monkeypatch.setitem(IMPLEMENTATIONS, "wrong", wrong)
    assert "differ" in trouble_with("wrong", 18, 3, 64, "bfloat16", False)
    assert not trouble_with("xla", 18, 3, 64, "bfloat16", True)


def test_an_implementation_that_does_not_exist_is_refused():
    with pytest.raises(InputError, match="flash"):
        from_dict({"model": {"attention": "flash"}})
    assert Model().attention == "auto"
