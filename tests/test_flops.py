"""Floating-point operations of a traced program, beside XLA's own count of the compiled one."""

import jax
import jax.numpy as jnp
import pytest
from flax import nnx

from vit_jax.cluster.sharding import make_mesh
from vit_jax.config import Config, MeshShape, Model, Optim
from vit_jax.experiment import batch_shapes, build_experiment
from vit_jax.models import abstract_model
from vit_jax.preflight.flops import count_flops

VIT = dict(name="custom/4", width=128, depth=1, mlp_dim=512, num_heads=2)


@pytest.mark.parametrize(
    "model",
    [
        VIT,
        VIT | dict(name="R5+custom/4", resnet=(1,), resnet_width=32),
        # Of 8 and 4 pixels on a side: up to a third of what a kernel of 3 covers is padding.
        dict(name="BiT-custom", resnet=(1, 1), resnet_width=64),
    ],
    ids=["vit", "hybrid", "bit"],
)
def test_the_count_of_a_training_step_is_xlas(model):
    """Within 5 %: XLA also counts what is done to single numbers."""
    config = Config(batch=32, image_size=32, model=Model(**model), optim=Optim(name="sgd"))
    mesh = make_mesh(MeshShape(), jax.devices()[:1])
    experiment = build_experiment(config, mesh, 10, 1000)
    shapes = batch_shapes(config, mesh, experiment.task)
    traced = experiment.train_step.trace(experiment.shapes, shapes, experiment.numbers)
    # A scan over a single block is no loop once compiled; of a loop, XLA would count one iteration.
    theirs = traced.lower().compile().cost_analysis()["flops"]
    assert count_flops(traced.jaxpr) == pytest.approx(theirs, rel=0.05)


@pytest.mark.parametrize(
    ("pixels", "window", "stride", "padding"),
    [
        (10, 3, 2, "SAME"),
        (9, 3, 1, "SAME"),
        (32, 7, 2, ((3, 3), (3, 3))),
        (8, 1, 2, "SAME"),
        (1, 3, 1, "SAME"),
        (12, 4, 4, "VALID"),
    ],
)
def test_a_convolution_and_its_gradients_cost_as_much_as_xla_says(pixels, window, stride, padding):
    image, kernel = jnp.zeros((2, pixels, pixels + 3, 4)), jnp.zeros((window, window, 4, 6))

    def convolve(image, kernel):
        axes = ("NHWC", "HWIO", "NHWC")
        return jax.lax.conv_general_dilated(image, kernel, (stride, stride), padding, dimension_numbers=axes)

    def pull(image, kernel, cotangent):
        return jax.vjp(convolve, image, kernel)[1](cotangent)

    arrays = (image, kernel)
    forward = count_flops(jax.make_jaxpr(convolve)(*arrays))
    assert forward == jax.jit(convolve).lower(*arrays).cost_analysis()["flops"]
    arrays = (*arrays, convolve(*arrays))
    gradients = jax.jit(pull).lower(*arrays).cost_analysis()["flops"]
    assert gradients == 2 * forward
    assert count_flops(jax.make_jaxpr(pull)(*arrays)) == forward + gradients


def test_loops_count_as_often_as_they_run_and_branches_as_the_dearest():
    def loop(x):
        x, _ = jax.lax.scan(lambda x, _: (jnp.einsum("bij,bjk->bik", x, x), None), x, length=5)
        return jax.lax.cond(x.sum() > 0, lambda x: x @ x, lambda x: x, x)

    assert count_flops(jax.make_jaxpr(jax.jit(loop))(jnp.zeros((7, 4, 4)))) == (5 + 1) * 7 * 2 * 4**3


def test_the_count_of_a_picture_is_what_papers_state():
    # 4.6 G multiply-adds, as timm and others report for S/16.
    model = abstract_model(**Config(model=Model(name="S/16")).model_facts(1000))
    graph, params = nnx.split(model)
    image = jax.ShapeDtypeStruct((1, 224, 224, 3), jnp.float32)
    program = jax.make_jaxpr(lambda params, image: nnx.merge(graph, params)(image))(params, image)
    assert count_flops(program) == pytest.approx(2 * 4.6e9, rel=0.01)
