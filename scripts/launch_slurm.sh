#!/usr/bin/env bash
#SBATCH --job-name=vit_jax
#SBATCH --requeue --open-mode=append
#SBATCH --signal=USR1@90
# Train on a SLURM cluster, and go on after preemption and the time limit (docs/clusters.md). In the repository:
#   sbatch --nodes=2 --ntasks-per-node=8 --gpus-per-node=8 scripts/launch_slurm.sh --config=FILE --workdir=DIR
# A task a GPU works, and so does one a node. All nodes must see the repository and DIR. PYTHON=... is the interpreter.
set -uo pipefail

if [ -z "${SLURM_JOB_ID:-}" ] || [[ "$*" != *--config=* ]] || [[ "$*" != *--workdir=* ]]; then
    echo "usage: sbatch [OPTIONS] scripts/launch_slurm.sh --config=FILE --workdir=DIR [--config.KEY=VALUE ...]" >&2
    exit 2
fi

# The tasks answer these signals by saving, and this script must outlive them.
trap : TERM USR1

# All tasks save and end together: none is killed because another was first, but one that hangs is after two minutes.
# srun doesn't take --cpus-per-task over from sbatch.
srun --kill-on-bad-exit=0 --wait=120 ${SLURM_CPUS_PER_TASK:+--cpus-per-task="$SLURM_CPUS_PER_TASK"} \
    "${PYTHON:-.venv/bin/python}" -m vit_jax.train "$@"
code=$?

# 75: saved after a signal. 138, 143: USR1 or TERM came before the command could listen. A job that was cancelled, or
# that SLURM requeues itself, no longer counts as running here, and is left alone.
case $code in 75 | 138 | 143)
    [ "$(squeue --noheader --job="$SLURM_JOB_ID" --format=%T)" != RUNNING ] || scontrol requeue "$SLURM_JOB_ID" ;;
esac
exit "$code"
