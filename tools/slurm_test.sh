#!/usr/bin/env bash
# Test through Slurm; the variables are those of slurm_train.sh.
# usage: [GPUS=8] ... ./tools/slurm_test.sh PARTITION JOB CONFIG CHECKPOINT [arguments of test.py]
set -euo pipefail
if [[ $# -lt 4 ]]; then
    echo "usage: [GPUS=8] [GPUS_PER_NODE=8] [CPUS_PER_TASK=5] [SRUN_ARGS=...] [PORT=...] [BATCH=1]" \
        "$0 PARTITION JOB CONFIG CHECKPOINT [arguments of test.py]" >&2
    exit 2
fi
PARTITION=$1 JOB=$2 CONFIG=$3
shift 3
exec "$(dirname "$0")/launch_slurm.sh" test.py "$PARTITION" "$JOB" \
    "work_dirs/$(basename "$CONFIG" .py)" "$CONFIG" "$@"
