#!/usr/bin/env bash
# Test on several GPUs; the variables are those of dist_train.sh.
# usage: [PORT=port] ./tools/dist_test.sh CONFIG CHECKPOINT GPUS [arguments of test.py]
set -euo pipefail
if [[ $# -lt 3 ]]; then
    echo "usage: [PORT=port] $0 CONFIG CHECKPOINT GPUS [arguments of test.py]" >&2
    exit 2
fi
CONFIG=$1 CHECKPOINT=$2 GPUS=$3
shift 3
exec "$(dirname "$0")/launch_torchrun.sh" test.py "$GPUS" "$CONFIG" "$CHECKPOINT" "$@"
