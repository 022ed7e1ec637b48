"""Checking a run without running it: what is counted, printed and refused, and that nothing is written."""

import os
import re
import subprocess
import sys

import jax
import numpy as np
import pytest

from tests.quick import FLAGS
from tests.test_bad_input import refusal
from tests.tiny import CONFIG, FILE
from vit_jax import train
from vit_jax.models import init_params
from vit_jax.preflight.collectives import received

PARTITIONED = """HloModule jit_step, entry_computation_layout={(f32[])->f32[]}, num_partitions=8

%add (x: f32[], y: f32[]) -> f32[] {
  %x = f32[] parameter(0)
  %y = f32[] parameter(1)
  ROOT %sum = f32[] add(%x, %y)
}

%body (p: (s32[], bf16[16,4])) -> (s32[], bf16[16,4]) {
  %p = (s32[], bf16[16,4]{1,0}) parameter(0)
  %i = s32[] get-tuple-element(%p), index=0
  %w = bf16[16,4]{1,0} get-tuple-element(%p), index=1
  %all-gather = bf16[128,4]{1,0} all-gather(%w), replica_groups=mesh['axis_0'=8,'axis_1'=1] {'axis_0'}, dimensions={0}
  %a = f32[128,4]{1,0} all-reduce(%all-gather), replica_groups=[2,4]<=[8], to_apply=%add
  %b = f32[128,4]{1,0} all-reduce(%all-gather), replica_groups=[2,4]<=[8], to_apply=%add
  %both = f32[128,4]{1,0} add(%a, %b), metadata={op_name="jit(step)/add"}
  ROOT %t = (s32[], bf16[16,4]{1,0}) tuple(%i, %w)
}

%condition (p.1: (s32[], bf16[16,4])) -> pred[] {
  %p.1 = (s32[], bf16[16,4]{1,0}) parameter(0)
  %i.1 = s32[] get-tuple-element(%p.1), index=0
  %n = s32[] constant(12)
  ROOT %less = pred[] compare(%i.1, %n), direction=LT
}

ENTRY %main (w.1: (s32[], bf16[16,4])) -> f32[64] {
  %w.1 = (s32[], bf16[16,4]{1,0}) parameter(0)
  %while.1 = (s32[], bf16[16,4]{1,0}) while(%w.1), condition=%condition, body=%body
  %g = f32[64]{0} constant({...})
  %all-reduce.1 = f32[64]{0} all-reduce(%g), replica_groups={{0,1,2,3,4,5,6,7}}, to_apply=%add
  %part = f32[8]{0} dynamic-slice(%all-reduce.1, %zero), dynamic_slice_sizes={8}
  %s = (f32[32]{0}, u8[32]{0}) all-to-all(%g, %g), replica_groups=mesh['a'=4,'b'=2], device_ids=([2,4]T(1,0)) {'b'}
  ROOT %r = f32[64]{0} collective-permute(%g), source_target_pairs={{0,1},{1,0}}
}
"""


def test_bytes_received():
    assert received(PARTITIONED) == {
        "all-gather": 12 * 128 * 4 * 2 * 7 // 8,
        "reduce-scatter": 64 * 4 * 7 // 8,
        "all-reduce": 12 * 2 * 128 * 4 * 4 * 3 // 4,  # Two whose results are added count as one.
        "all-to-all": (32 * 4 + 32) // 2,
        "collective-permute": 64 * 4,
    }
    assert received(PARTITIONED.replace("direction=LT", "direction=NE"))["all-gather"] == 128 * 4 * 2 * 7 // 8
    with pytest.raises(ValueError, match="group of devices of a collective can't be read"):
        received(PARTITIONED.replace("[2,4]<=[8]", "everyone"))


def lines_of(output):
    return dict(re.findall(r"^(\w+) +(.*)$", output, re.MULTILINE))


def test_a_topology_that_is_not_there(tmp_path):
    (tmp_path / "tiny.py").write_text(FILE)
    arguments = ["--config.mesh.fsdp=4", "--config.batch=4096", "--config.data.name=tfds:imagenet21k"]
    arguments += [f"--config.data.path={tmp_path}", "--config.data.examples=40_960", "--config.data.classes=100"]
    arguments += ["--config.total=3ep", "--config.optim.layer_decay=0.5", "--devices=64"]
    command = [sys.executable, "-m", "vit_jax.train", "--check", f"--config={tmp_path}/tiny.py"]
    command += [f"--workdir={tmp_path}/run", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, env=os.environ | {"XLA_FLAGS": FLAGS})
    assert done.returncode == 0, done.stderr
    lines = lines_of(done.stdout)
    assert lines["data"] == "not here; by the config 40,960 train pictures, 100 classes"
    assert lines["mesh"] == "data 16 x fsdp 4 x tensor 1: 64 x simulated devices, 64 pictures each"
    assert lines["run"] == "30 steps of 4,096 pictures: 3.00 epochs; 5 steps warm-up"
    assert "all-gather" in lines["received"]
    assert "upper bound" in done.stdout  # bfloat16, as on an accelerator.
    assert re.search(r"embedding/kernel +0\.05 +0\.00125$", done.stdout, re.MULTILINE)
    assert "optim.layer_decay=0.5" in lines["config"]
    assert "optim.name" not in lines["config"]
    assert {path.name for path in tmp_path.iterdir()} <= {"tiny.py", "__pycache__"}


def test_devices_that_are_there(tmp_path, capfd):
    named = {"val": {}, "close": {"evaluator": "knn", "neighbours": (5,)}}
    (tmp_path / "tiny.py").write_text(FILE.replace("})", f"}} | {{'evaluators': {named}}})"))
    train.main([f"--config={tmp_path}/tiny.py", f"--workdir={tmp_path}/run", "--check", "--config.batch=8"])
    lines = lines_of(capfd.readouterr().out)
    assert "evaluators.close.neighbours=(5,)" in lines["config"]
    assert "evaluators.close.shots" not in lines["config"]
    assert lines["data"] == "1,437 train pictures, 10 classes"
    assert lines["mesh"] == "data 8 x fsdp 1 x tensor 1: 8 x cpu, 1 pictures each"
    params = jax.eval_shape(lambda key: init_params(key, **CONFIG.model_facts(10)), jax.random.key(0))
    number = sum(np.size(x) for x in jax.tree.leaves(params))
    assert lines["model"] == f"Ti/2: {number:,} parameters"
    # With data parallelism only, every gradient is all-reduced: twice 7/8 of its bytes.
    moved = float(re.search(r"all-reduce ([\d.]+)", lines["received"])[1]) * 1e6
    assert 2 * 7 / 8 * 4 * number < moved + 0.05e6 < 1.1 * 2 * 7 / 8 * 4 * number + 0.1e6
    assert re.search(r"s per step, [\d,]+ pictures per second", lines["time"])
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--devices=8"], "--devices=8: devices that are not present can only be checked; add --check"),
        (["--check", "--devices=many"], "--devices=many: must be a number of devices to simulate, or a TPU topology"),
        (["--check", "--devices=0"], "--devices=0: must be"),
        (["--check", "--config.mesh.fsdp=3"], "but there are 8"),
        (["--check", "--config.batch=12"], "config.batch=12 is not divisible by the 8 devices"),
        (["--check", "--config.data.name=folder"], "config.data.path is not set"),
        (["--check", "--config.model.pool=none"], "config.model.pool='none' has logits for each token"),
        (["--check", "--config.evaluators=('x',)"], "config.evaluators: 'x'"),
    ],
)
def test_refused(tmp_path, capfd, arguments, message):
    (tmp_path / "tiny.py").write_text(FILE)
    error = refusal(capfd, train.main, f"--config={tmp_path}/tiny.py", f"--workdir={tmp_path}/run", *arguments)
    assert message in error
    assert not (tmp_path / "run").exists()


def test_refused_where_it_could_not_be_written(tmp_path, capfd):
    (tmp_path / "tiny.py").write_text(FILE)
    for workdir in (tmp_path / "tiny.py", tmp_path / "tiny.py" / "run"):
        error = refusal(capfd, train.main, f"--config={tmp_path}/tiny.py", f"--workdir={workdir}", "--check")
        assert f"workdir '{workdir}' can't be written" in error
