#!/usr/bin/env bash
# Train through Slurm, on GPUs or, on a partition without any, on CPUs (gloo).
# usage: [GPUS=8] [GPUS_PER_NODE=8] [CPUS_PER_TASK=5] [SRUN_ARGS=...] [PORT=...] [BATCH=1] \
#        ./tools/slurm_train.sh PARTITION JOB CONFIG [WORK_DIR] [arguments of train.py]
# Runs in the foreground (srun), or with BATCH=1 as a batch job: when that is pre-empted, or two
# minutes before its time limit, it saves, goes back to the queue and later goes on by itself.
# Without PORT (or MASTER_PORT), the port follows from the job's number. SRUN_ARGS are more
# arguments of srun or sbatch, such as --time=4:00:00 or --signal=USR1@300. PYTHON names the
# interpreter. MMSAM_TIMEOUT_MINUTES (10): a run in which no rank comes on for so long ends and names
# the rank that the others wait for.
set -euo pipefail
if [[ $# -lt 3 ]]; then
    echo "usage: [GPUS=8] [GPUS_PER_NODE=8] [CPUS_PER_TASK=5] [SRUN_ARGS=...] [PORT=...] [BATCH=1]" \
        "$0 PARTITION JOB CONFIG [WORK_DIR] [arguments of train.py]" >&2
    exit 2
fi
PARTITION=$1 JOB=$2 CONFIG=$3
printf -v MMSAM_COMMAND '%q ' "GPUS=${GPUS:-8}" "$0" "$@"  # for report.html
export MMSAM_COMMAND
shift 3
LOG_DIR=work_dirs/$(basename "$CONFIG" .py)
WORK_DIR=()
if [[ $# -gt 0 && $1 != -* ]]; then
    LOG_DIR=$1
    WORK_DIR=(--work-dir "$1")
    shift
fi
exec "$(dirname "$0")/launch_slurm.sh" train.py "$PARTITION" "$JOB" "$LOG_DIR" \
    "$CONFIG" "${WORK_DIR[@]}" "$@"
