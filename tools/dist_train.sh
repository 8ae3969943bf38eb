#!/usr/bin/env bash
# Train on several GPUs of one machine; without GPUs, on several CPU processes (gloo).
# usage: [PORT=29500] ./tools/dist_train.sh CONFIG GPUS [arguments of train.py]
# Two jobs on one machine need different PORTs. On several machines, run it on each with
# NNODES=n NODE_RANK=0..n-1 MASTER_ADDR=<first machine>. PYTHON names the interpreter.
set -euo pipefail
if [[ $# -lt 2 ]]; then
    echo "usage: [PORT=29500] $0 CONFIG GPUS [arguments of train.py]" >&2
    exit 2
fi
CONFIG=$1 GPUS=$2
shift 2
exec "$(dirname "$0")/launch_torchrun.sh" train.py "$GPUS" "$CONFIG" "$@"
