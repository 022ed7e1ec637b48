#!/usr/bin/env bash
#SBATCH --job-name=vit_jax
#SBATCH --requeue --open-mode=append
#SBATCH --signal=USR1@90
# Train on a SLURM cluster, and continue after preemption or the time limit (docs/clusters.md):
#   sbatch --nodes=2 --ntasks-per-node=8 --gpus-per-node=8 scripts/launch_slurm.sh --config=FILE --workdir=DIR
# One task a GPU; submit in the repository, on a file system that all nodes see. PYTHON=... names another interpreter.
set -uo pipefail

if [ -z "${SLURM_JOB_ID:-}" ] || [[ "$*" != *--config* ]] || [[ "$*" != *--workdir* ]]; then
    echo "usage: sbatch [options of sbatch] scripts/launch_slurm.sh --config=FILE --workdir=DIR [--config.KEY=VALUE ...]" >&2
    exit 2
fi

# The tasks answer these signals, by saving; this script must outlive them.
trap : TERM USR1

# The tasks save and end together, so none may be killed because another was first; 120 s ends one that hangs.
# srun doesn't take this number from sbatch by itself.
[ -z "${SLURM_CPUS_PER_TASK:-}" ] || export SRUN_CPUS_PER_TASK=$SLURM_CPUS_PER_TASK
srun --kill-on-bad-exit=0 --wait=120 "${PYTHON:-.venv/bin/python}" -m vit_jax.train "$@"
code=$?

# 75: saved after a signal, go on later. A job that was cancelled, or that SLURM requeues by itself, no longer runs.
if [ "$code" = 75 ] && [ "$(squeue --noheader --job="$SLURM_JOB_ID" --format=%T)" = RUNNING ]; then
    scontrol requeue "$SLURM_JOB_ID"
fi
exit "$code"
