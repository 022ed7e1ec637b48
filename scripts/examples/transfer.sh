#!/usr/bin/env bash
# Runs every command of docs/transfer.md, in order: scripts/examples/transfer.sh CIFAR10
# CIFAR10 is a folder {train,test}/<class>/*.jpg. Everything is written into transfer/; a run that was stopped continues.
set -euo pipefail
cifar10=$(realpath "${1:?usage: scripts/examples/transfer.sh CIFAR10}")
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
mkdir -p transfer
ln -sfn "$cifar10" transfer/cifar10
exec bash -euxo pipefail <(sed -n '/^```sh$/,/^```$/{/^```/!p}' docs/transfer.md)
