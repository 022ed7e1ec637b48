"""Checks a run without running it: `python -m vit_jax.train ... --check [--devices=256]`."""

import contextlib
import dataclasses
import functools
import math
import os
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.experimental import topologies
from jax.experimental.compilation_cache.compilation_cache import reset_cache
from jax.sharding import Mesh

from vit_jax import data, tree
from vit_jax.cluster.sharding import BATCH, make_mesh, shard_bytes
from vit_jax.config import Config, Evaluation, differences, flatten, with_length
from vit_jax.errors import InputError
from vit_jax.evaluators import Evaluators, Subject
from vit_jax.experiment import Experiment, batch_shapes, build_experiment
from vit_jax.optim.rates import format_rates
from vit_jax.preflight.attention import compare_with_full
from vit_jax.preflight.collectives import received
from vit_jax.preflight.flops import count_flops
from vit_jax.preflight.keys import check_keys
from vit_jax.runs.directory import read_facts
from vit_jax.runs.final import FinalReport
from vit_jax.weights.initialise import loading_needs, start_from
from vit_jax.weights.placement import Absent
from vit_jax.weights.zeroshot import open_head

SUSTAINED = 100e12  # FLOP/s of each device, assumed where the time of a step can't be measured.
TIMED = 3  # steps


class Compiled(NamedTuple):
    """A training step compiled for a mesh.

    Attributes:
        temporary: bytes on each device in addition to the state and the batch.
        received: bytes by kind of collective; see `vit_jax.preflight.collectives`.
        seconds: compile time.
    """

    step: jax.stages.Compiled
    temporary: int
    received: dict[str, int]
    seconds: float


def check(config: Config, workdir: Path, asked: str | None = None) -> None:
    """Print what a run would do and need: data, model, plan, and for each device memory, traffic and time.

    Args:
        asked: devices that are not present: "256" simulates them, "v5e:16x16" needs `libtpu` and its compiler. The step
            is compiled for them but not run, and the data may be missing.

    Raises:
        InputError: the run could not start.
    """
    devices = jax.devices() if asked is None else find_devices(asked)
    mesh = make_mesh(config.mesh, devices)
    check_keys(config, mesh)
    settings = " ".join(f"{key}={value!r}" for key, value in _changed(config))
    _say("config", settings or "the defaults")
    config, examples, label_names, here = _data(config, may_be_absent=asked is not None)
    nowhere = Absent(mesh)
    config, weights = start_from(config, label_names, workdir, nowhere)
    if weights is not None:
        _say("init", weights.report)
        _say("", loading_needs(config.init, nowhere))
    _check_workdir(config, workdir)
    if asked is not None and config.model.dtype == "auto":
        config = dataclasses.replace(config, model=dataclasses.replace(config.model, dtype="bfloat16"))
    experiment = build_experiment(config, mesh, len(label_names), examples)
    batch = batch_shapes(config, mesh, experiment.task)
    one = {name: jax.ShapeDtypeStruct((1, *each.shape[1:]), each.dtype) for name, each in batch.items()}
    forward = count_flops(jax.make_jaxpr(experiment.eval_step)(experiment.shapes.params, one))
    traced = experiment.train_step.trace(experiment.shapes, batch, experiment.numbers)
    flops = count_flops(traced.jaxpr)
    _say("model", f"{config.model.name}: {tree.count(experiment.shapes.params):,} parameters")
    _say("", f"{forward / 1e9:,.1f} GFLOPs a picture forward, {flops / config.batch / 1e9:,.1f} in a training step")
    rows = config.batch // math.prod(mesh.shape[axis] for axis in BATCH)
    if config.model.attention_pattern != "full":
        _say("attention", compare_with_full(config, rows, measure=asked is None))
    plan = experiment.plan
    epochs = plan.total * config.batch / examples
    _say(
        "run", f"{plan.total:,} steps of {config.batch:,} pictures: {epochs:,.2f} epochs; {plan.warmup:,} steps warm-up"
    )
    if here:
        known = dict(label_names=label_names, mesh=mesh, text_head=open_head)
        subject = functools.partial(Subject, experiment.graph, experiment.task, **known)
        evaluators, report = Evaluators(subject(config)), FinalReport(config, subject, workdir)
        for name, number in evaluators.pictures.items():
            every = plan.evaluations[name]
            part = number * forward * (plan.total // every) / (flops * plan.total)
            _say("evaluate", f"{name!r}: {number:,} pictures every {every:,} steps, {part:.1%} of the run's operations")
        if report.pictures:
            _say("", f"'test': {report.pictures:,} pictures once, at the end")
    if config.optim.lr_mults or config.optim.layer_decay is not None or config.optim.last_blocks is not None:
        _say("rates", format_rates(config.optim, experiment.shapes.params).replace("\n", "\n" + " " * 10))
    axes = " x ".join(f"{name} {size}" for name, size in mesh.shape.items())
    kind = devices[0].device_kind if asked is None or ":" in asked else "simulated devices"
    _say("mesh", f"{axes}: {mesh.size} x {kind}, {rows:,} pictures each")
    compiled = compile_step(traced, mesh, runs=asked is None)
    _say("compiled", f"in {compiled.seconds:.0f} s")
    simulated = devices[0].platform == "cpu" and config.model.dtype == "bfloat16"
    _memory(experiment, batch, compiled, bounded=simulated)
    moved = ", ".join(f"{kind} {size / 1e6:,.1f}" for kind, size in compiled.received.items())
    _say("received", f"by each device in a step, MB: {moved or 'nothing'}")
    _time(experiment, batch, compiled, flops / mesh.size, config, measure=asked is None)


def find_devices(asked: str) -> list[jax.Device]:
    """Return devices that are not present: simulated ones ("256"), or a TPU topology ("v5e:16x16").

    Raises:
        InputError: `asked` is neither, or there is no compiler for it.
    """
    if ":" in asked:
        # Without these, the compiler looks for the TPU machine it would run on.
        os.environ.setdefault("TPU_SKIP_MDS_QUERY", "1")
        os.environ.setdefault("TPU_WORKER_HOSTNAMES", "localhost")
        jax.config.update("jax_platforms", "cpu")
        try:
            return list(topologies.get_topology_desc(asked, platform="tpu").devices)
        except Exception as error:  # libtpu, or its absence, can raise anything.
            reason = str(error).splitlines()[0][:200]
            raise InputError(
                f"--devices={asked}: no such TPU topology, or no libtpu ([tpu] extra): {reason}"
            ) from error
    if not asked.isdecimal() or not int(asked):
        raise InputError(
            f"--devices={asked}: must be a number of devices to simulate, or a TPU topology like v5e:16x16"
        )
    jax.config.update("jax_platforms", "cpu")
    jax.config.update("jax_num_cpu_devices", int(asked))
    return jax.devices()


def compile_step(traced: jax.stages.Traced, mesh: Mesh, *, runs: bool = False) -> Compiled:
    """Compile a traced step for the devices of its mesh, which need not be present unless it `runs`."""
    start = time.perf_counter()
    with tempfile.TemporaryDirectory() as folder, _no_cache():
        options = {"xla_dump_to": folder, "xla_dump_hlo_pass_re": ".*spmd-partitioning"}
        if not runs and mesh.devices.flat[0].platform == "cpu":
            options["xla_backend_optimization_level"] = 0  # For machine code; memory and traffic don't depend on it.
        with _fitting():
            step = traced.lower().compile(compiler_options=options)
        (dumped, *_) = [*Path(folder).glob("*.after_*spmd-partitioning.before_*"), None]
        bytes_received = {} if dumped is None else received(dumped.read_text())
    memory = step.memory_analysis()
    temporary = memory.temp_size_in_bytes + memory.output_size_in_bytes - memory.alias_size_in_bytes
    return Compiled(step, temporary, bytes_received, time.perf_counter() - start)


@contextlib.contextmanager
def _fitting() -> Iterator[None]:
    try:
        yield
    except jax.errors.JaxRuntimeError as error:
        if "RESOURCE_EXHAUSTED" not in str(error):
            raise
        how = "try model.remat=full, accumulate, or more devices for fsdp"
        raise InputError(f"the step does not fit the devices' memory; {how}: {str(error).splitlines()[0]}") from error


@contextlib.contextmanager
def _no_cache() -> Iterator[None]:
    # A program from the compilation cache is not partitioned again, so the partitioned program would not be dumped.
    enabled = jax.config.jax_enable_compilation_cache
    jax.config.update("jax_enable_compilation_cache", False)
    reset_cache()
    try:
        yield
    finally:
        jax.config.update("jax_enable_compilation_cache", enabled)
        reset_cache()


def _say(name: str, text: str) -> None:
    if jax.process_index() == 0:
        print(f"{name:10}{text}", flush=True)


def _changed(config: Config) -> Iterator[tuple[str, Any]]:
    # Evaluations have the names that the config gives them.
    named = {name: Evaluation() for name in config.evaluators} if isinstance(config.evaluators, dict) else None
    default = flatten(dataclasses.asdict(Config(evaluators=named)))
    return ((key, value) for key, value in flatten(dataclasses.asdict(config)).items() if value != default[key])


def _data(config: Config, may_be_absent: bool) -> tuple[Config, int, tuple[str, ...], bool]:
    """Return the settled config, the number of training pictures, the classes, and whether the data is present."""
    examples, classes = config.data.examples, config.data.classes
    try:
        config, settled = data.settle(config)
        source = data.open_train(config)
    except InputError as error:
        if not may_be_absent:
            raise
        if examples is None or classes is None:
            how = "without the data, config.data.examples and config.data.classes must be set"
            raise InputError(f"{error}; {how}") from error
        _say("data", f"not here; by the config {examples:,} train pictures, {classes:,} classes")
        return with_length(config, examples), examples, tuple(map(str, range(classes))), False
    _say("data", f"{len(source):,} train pictures, {len(source.label_names):,} classes")
    for line in settled:
        _say("", line)
    return config, len(source), source.label_names, True


def _check_workdir(config: Config, workdir: Path) -> None:
    if (workdir / "run.json").exists():
        if changes := differences(read_facts(workdir).config, config):
            raise InputError(f"workdir {str(workdir)!r} holds a run of another config ({'; '.join(changes)})")
        return
    there = next(parent for parent in (workdir.absolute(), *workdir.absolute().parents) if parent.exists())
    if not there.is_dir() or not os.access(there, os.W_OK):
        raise InputError(f"workdir {str(workdir)!r} can't be written: {str(there)!r} is no directory or not writable")


def _memory(experiment: Experiment, batch: dict[str, jax.ShapeDtypeStruct], compiled: Compiled, bounded: bool) -> None:
    state = experiment.shapes
    parts = {
        "parameters": shard_bytes(state.params),
        "optimizer": shard_bytes(state.opt_state),
        "average": shard_bytes(state.ema),
        "batch": shard_bytes(batch),
        "temporaries": compiled.temporary,
    }
    shown = ", ".join(f"{name} {size / 2**30:,.2f}" for name, size in parts.items() if size)
    _say("memory", f"of each device, GiB: {shown}; {sum(parts.values()) / 2**30:,.2f} in all")
    whole = sum(x.size * x.dtype.itemsize for x in jax.tree.leaves(state))
    _say("", f"each device holds 1/{whole / shard_bytes(state):.1f} of the state, {whole / 2**30:,.2f} GiB")
    if bounded:
        _say("", "temporaries are an upper bound: the CPU's compiler holds much of bfloat16 as float32")


def _time(
    experiment: Experiment,
    batch: dict[str, jax.ShapeDtypeStruct],
    compiled: Compiled,
    flops: float,
    config: Config,
    measure: bool,
) -> None:
    total = experiment.plan.total
    if not measure:
        seconds = flops / SUSTAINED
        at = f"at {SUSTAINED / 1e12:.0f} TFLOP/s sustained by each device"
        _say("time", f"{flops / 1e12:,.2f} TFLOPs a step for each device: {at}, {_duration(seconds * total)}")
        return
    with _fitting():
        state = experiment.init(jax.random.key(config.seed))
        black = jax.jit(
            lambda: jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), batch),
            out_shardings=jax.tree.map(lambda x: x.sharding, batch),
        )()
        state, _ = jax.block_until_ready(compiled.step(state, black, experiment.numbers))
        start = time.perf_counter()
        for _ in range(TIMED):
            state, _ = compiled.step(state, black, experiment.numbers)
        jax.block_until_ready(state)
    seconds = (time.perf_counter() - start) / TIMED
    pace = f"{seconds:.3g} s per step, {config.batch / seconds:,.0f} pictures per second"
    rate = f"{flops / seconds / 1e12:,.2f} TFLOP/s on each device"
    _say("time", f"{pace}, {rate}; {_duration(seconds * total)} without reading, evaluating and saving")


def _duration(seconds: float) -> str:
    for size, unit in ((86400, "days"), (3600, "hours"), (60, "minutes")):
        if seconds >= 2 * size:
            return f"{seconds / size:,.1f} {unit}"
    return f"{seconds:,.1f} seconds"
