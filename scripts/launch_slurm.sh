#!/usr/bin/env bash
#SBATCH --job-name=vit_jax
#SBATCH --requeue --open-mode=append
#SBATCH --signal=USR1@90
# Train on a SLURM cluster, and continue after preemption or the time limit (docs/clusters.md). In the repository:
#   sbatch --nodes=2 --ntasks-per-node=8 --gpus-per-node=8 scripts/launch_slurm.sh --config=FILE --workdir=DIR
# One task per GPU works, and so does one per node. All nodes must see the repository and DIR. PYTHON=... selects the
# interpreter.
set -uo pipefail

if [ -z "${SLURM_JOB_ID:-}" ] || [[ "$*" != *--config=* ]] || [[ "$*" != *--workdir=* ]]; then
    echo "usage: sbatch [OPTIONS] scripts/launch_slurm.sh --config=FILE --workdir=DIR [--config.KEY=VALUE ...]" >&2
    exit 2
fi

# The tasks handle these signals by saving, and this script must outlive them.
trap : TERM USR1

# All tasks save and exit together: none is killed because another exited first, but one that hangs is killed after two
# minutes. srun doesn't inherit --cpus-per-task from sbatch.
srun --kill-on-bad-exit=0 --wait=120 ${SLURM_CPUS_PER_TASK:+--cpus-per-task="$SLURM_CPUS_PER_TASK"} \
    "${PYTHON:-.venv/bin/python}" -m vit_jax.train "$@"
code=$?

# 75: saved after a signal. 138, 143: USR1 or TERM arrived before the command handled signals. A job that was cancelled,
# or that SLURM requeues itself, is no longer RUNNING here and is left alone.
case $code in 75 | 138 | 143)
    [ "$(squeue --noheader --job="$SLURM_JOB_ID" --format=%T)" != RUNNING ] || scontrol requeue "$SLURM_JOB_ID" ;;
esac
exit "$code"
