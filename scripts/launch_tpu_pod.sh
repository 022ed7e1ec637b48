#!/usr/bin/env bash
# Train on all hosts of a Cloud TPU slice. Run it in the repository, where gcloud is set up (docs/clusters.md):
#   TPU=NAME ZONE=us-east5-b TYPE=v6e-32 IMAGE=v2-alpha-tpuv6e scripts/launch_tpu_pod.sh --config=FILE --workdir=DIR
# Creates the slice (a spot slice with SPOT=1) if it is missing or was preempted, installs the last commit, and starts
# the command, which outlives the connection. The same command continues a run. All hosts must see DIR.
set -euo pipefail

if [ -z "${TPU:-}" ] || [ -z "${ZONE:-}" ] || [[ "$*" != *--config=* ]] || [[ "$*" != *--workdir=* ]]; then
    echo "usage: TPU=NAME ZONE=ZONE [TYPE=TYPE IMAGE=IMAGE SPOT=1] $0 --config=FILE --workdir=DIR [...]" >&2
    exit 2
fi
cd "$(dirname "${BASH_SOURCE[0]}")/.."
tpu() { gcloud compute tpus tpu-vm "$@" --zone="$ZONE"; }

state=$(tpu list --filter="name~(^|/)$TPU\$" --format="value(state)")
if [ "$state" = PREEMPTED ] || [ "$state" = TERMINATED ]; then
    tpu delete "$TPU" --quiet
    state=
fi
[ -n "$state" ] || tpu create "$TPU" --accelerator-type="${TYPE:?}" --version="${IMAGE:?}" ${SPOT:+--spot}

code=$(mktemp --suffix=.tar)
trap 'rm -f "$code"' EXIT
git archive --output="$code" HEAD
tpu scp "$code" "$TPU:vit_jax.tar" --worker=all

# The run inherits the lock and holds it until it ends, so that no other is started or installed at the same time.
tpu ssh "$TPU" --worker=all --command="set -e
    mkdir -p vit_jax && cd vit_jax && exec 9>lock
    flock -n 9 || { echo 'another run is already in progress here'; exit 1; }
    tar xf ../vit_jax.tar
    python3 -m pip install -q --user uv && PATH=~/.local/bin:\$PATH
    uv venv -q --allow-existing --python 3.12 .venv
    uv pip install -q --constraint constraints.txt '.[tpu]'
    nohup setsid .venv/bin/python -m vit_jax.train$(printf ' %q' "$@") >>train.log 2>&1 </dev/null &"
echo "started; for its output: gcloud compute tpus tpu-vm ssh $TPU --zone=$ZONE --command='tail -F vit_jax/train.log'"
