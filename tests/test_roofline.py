"""The roofline: bytes moved and operations computed by each operation of a compiled program."""

import json

import jax
import jax.numpy as jnp
import pytest
from bench.roofline import Operation, operations, part_of
from benchmark import main

from vit_jax.errors import InputError


def launched(function, *inputs):
    return operations(jax.jit(function).lower(*inputs).compile().as_text())


def test_a_matrix_product_reads_both_and_writes_one():
    (product,) = launched(jnp.matmul, jnp.ones((64, 128)), jnp.ones((128, 256)))
    assert product.flops == 2 * 64 * 128 * 256
    assert product.moved == 4 * (64 * 128 + 128 * 256 + 64 * 256)


@pytest.mark.parametrize(
    "options",
    [
        dict(window_strides=(2, 2), padding="SAME"),
        dict(window_strides=(1, 1), padding=[(1, 2), (0, 3)], rhs_dilation=(2, 1)),
        dict(window_strides=(1, 1), padding=[(0, 0), (1, 0)], lhs_dilation=(3, 2)),
        dict(window_strides=(1, 1), padding="SAME", feature_group_count=4),
    ],
)
def test_a_convolution_counts_the_taps_that_hit_its_input(options):
    groups = options.get("feature_group_count", 1)
    images, kernels = jnp.ones((2, 9, 7, 8)), jnp.ones((3, 3, 8 // groups, 16))

    def convolved(images, kernels):
        return jax.lax.conv_general_dilated(images, kernels, dimension_numbers=("NHWC", "HWIO", "NHWC"), **options)

    compiled = jax.jit(convolved).lower(images, kernels).compile()
    assert sum(each.flops for each in operations(compiled.as_text())) == compiled.cost_analysis()["flops"]


def test_bytes_in_the_memory_of_a_core_are_not_counted():
    text = """
ENTRY %main (a: bf16[64,128]) -> bf16[64,128] {
  %a = bf16[64,128]{1,0:T(8,128)(2,1)} parameter(0)
  %copy-start = (bf16[64,128]{1,0:T(8,128)(2,1)S(1)}, bf16[64,128]{1,0:T(8,128)(2,1)}, u32[]{:S(2)}) copy-start(%a)
  %copy-done = bf16[64,128]{1,0:T(8,128)(2,1)S(1)} copy-done(%copy-start)
  ROOT %negate = bf16[64,128]{1,0:T(8,128)(2,1)} negate(%copy-done)
}
"""
    assert [each.moved for each in operations(text)] == [2 * 64 * 128, 2 * 64 * 128]


def test_a_slice_within_a_nested_fusion_counts_as_what_it_reads_and_an_allocation_as_nothing():
    text = """
%cut (a.2: f32[12,64,128], i.2: s32[]) -> f32[1,64,128] {
  %a.2 = f32[12,64,128]{2,1,0} parameter(0)
  %i.2 = s32[] parameter(1)
  ROOT %slice = f32[1,64,128]{2,1,0} dynamic-slice(%a.2, %i.2), dynamic_slice_sizes={1,64,128}
}

%negated (a.1: f32[12,64,128], i.1: s32[]) -> f32[1,64,128] {
  %a.1 = f32[12,64,128]{2,1,0} parameter(0)
  %i.1 = s32[] parameter(1)
  %inner = f32[1,64,128]{2,1,0} fusion(%a.1, %i.1), kind=kLoop, calls=%cut
  ROOT %negate = f32[1,64,128]{2,1,0} negate(%inner)
}

ENTRY %main (i: s32[]) -> f32[1,64,128] {
  %i = s32[] parameter(0)
  %a = f32[12,64,128]{2,1,0} custom-call(), custom_call_target="AllocateBuffer"
  ROOT %outer = f32[1,64,128]{2,1,0} fusion(%a, %i), calls=%negated, backend_config={"estimated_cycles":"71"}
}
"""
    assert [(each.moved, each.cycles) for each in operations(text)] == [(2 * 4 * 64 * 128 + 4, 71)]


def test_a_loop_counts_as_often_as_it_runs_and_a_slice_as_what_it_reads():
    def products(kernels, x):
        return jax.lax.scan(lambda x, kernel: (jnp.tanh(x @ kernel), None), x, kernels)[0]

    found = launched(products, jnp.ones((12, 128, 128)), jnp.ones((64, 128)))
    assert sum(each.times * each.flops for each in found) == 12 * 2 * 64 * 128 * 128
    kernels, tokens = 4 * 12 * 128 * 128, 4 * 12 * 64 * 128
    # Each iteration copies its slice, then reads it in the product, and never reads all twelve kernels.
    assert kernels + 2 * tokens <= sum(each.times * each.moved for each in found) <= 4 * kernels + 6 * tokens


@pytest.mark.parametrize(
    ("path", "flops", "part"),
    [
        ("jit(train_step)/jvp()/while/body/mlp/dot_general", 1, "forward: linear layers"),
        ("jit(train_step)/transpose(jvp())/while/body/mlp/mul", 0, "backward: norms, GELU, biases, residuals"),
        ("jit(train_step)/jvp()/while/body/attend/dot_general", 1, "forward: attention"),
        ("jit(train_step)/mul", 0, "optimizer"),
    ],
)
def test_an_operation_is_told_under_its_part(path, flops, part):
    assert part_of(Operation("fusion", 1, 1, flops, 0, path)) == part


# JAX's profile reader raises warnings on Python 3.12 and newer, where an error would abort the process.
@pytest.mark.filterwarnings("ignore:builtin type .* has no __module__ attribute:DeprecationWarning")
def test_the_parts_of_a_step_are_told(tmp_path):
    out = tmp_path / "figures.json"
    options = ["--model=Ti/16", "--set=depth=2", "--image_size=32", "--batch=4", "--each=1", f"--json={out}"]
    main(["roofline", "train", *options])
    rows = {row["part"]: row for row in json.loads(out.read_text())["rows"]}
    for part in ("forward: attention", "backward: linear layers", "optimizer"):
        assert rows[part]["floor ms"] > 0
        assert rows[part]["measured ms"] > 0
    # Forward, and backward for the inputs and the parameters.
    linear = rows["forward: linear layers"]["GFLOP"]
    assert 1.8 * linear < rows["backward: linear layers"]["GFLOP"] < 2.2 * linear


def test_a_device_that_is_not_known_is_refused():
    with pytest.raises(InputError, match="--device=h3000: no such device; choose one of h200, v5e, v6e"):
        main(["roofline", "train", "--device=h3000"])
