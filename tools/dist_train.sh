#!/usr/bin/env bash
# Train on several GPUs of one machine; without GPUs, on several CPU processes (gloo).
# usage: [PORT=port] ./tools/dist_train.sh CONFIG GPUS [arguments of train.py]
# Without PORT it takes 29500, or a free port where that is taken. On several machines, run it on
# each with NNODES=n NODE_RANK=0..n-1 MASTER_ADDR=<first machine>; there the port is PORT or 29500.
# PYTHON names the interpreter. MMSAM_TIMEOUT_MINUTES (10): a run in which no rank comes on for so
# long ends and names the rank that the others wait for.
# When a rank fails, the others are stopped, its error is printed last, and its exit code returned.
set -euo pipefail
if [[ $# -lt 2 ]]; then
    echo "usage: [PORT=port] $0 CONFIG GPUS [arguments of train.py]" >&2
    exit 2
fi
CONFIG=$1 GPUS=$2
printf -v MMSAM_COMMAND '%q ' "$0" "$@"  # for report.html
export MMSAM_COMMAND
shift 2
exec "$(dirname "$0")/launch_torchrun.sh" train.py "$GPUS" "$CONFIG" "$@"
