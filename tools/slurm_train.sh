#!/usr/bin/env bash
# Train through Slurm's srun.
# usage: [GPUS=8] [GPUS_PER_NODE=8] [CPUS_PER_TASK=5] [SRUN_ARGS=...] [PORT=29500] \
#        ./tools/slurm_train.sh PARTITION JOB CONFIG [WORK_DIR] [arguments of train.py]
# Two jobs that may share a node need different PORTs (or MASTER_PORTs).
set -euo pipefail
if [[ $# -lt 3 ]]; then
    echo "usage: [GPUS=8] [GPUS_PER_NODE=8] [CPUS_PER_TASK=5] [SRUN_ARGS=...] [PORT=29500]" \
        "$0 PARTITION JOB CONFIG [WORK_DIR] [arguments of train.py]" >&2
    exit 2
fi
PARTITION=$1 JOB=$2 CONFIG=$3
shift 3
WORK_DIR=()
if [[ $# -gt 0 && $1 != -* ]]; then
    WORK_DIR=(--work-dir "$1")
    shift
fi
GPUS=${GPUS:-8}
GPUS_PER_NODE=${GPUS_PER_NODE:-8}
CPUS_PER_TASK=${CPUS_PER_TASK:-5}
for number in "$GPUS" "$GPUS_PER_NODE" "$CPUS_PER_TASK"; do
    if ! [[ $number =~ ^[1-9][0-9]*$ ]]; then
        echo "LaunchError: GPUS, GPUS_PER_NODE and CPUS_PER_TASK: expected numbers of at least 1," \
            "got '$GPUS', '$GPUS_PER_NODE', '$CPUS_PER_TASK'." >&2
        exit 5
    fi
done
if ((GPUS < GPUS_PER_NODE)); then
    GPUS_PER_NODE=$GPUS
fi
if ((GPUS % GPUS_PER_NODE)); then
    echo "LaunchError: GPUS=$GPUS is no multiple of GPUS_PER_NODE=$GPUS_PER_NODE." >&2
    exit 5
fi
export MASTER_PORT=${PORT:-${MASTER_PORT:-29500}}
# SRUN_ARGS holds several arguments, hence unquoted
# shellcheck disable=SC2086
exec srun --partition="$PARTITION" --job-name="$JOB" --gres=gpu:"$GPUS_PER_NODE" \
    --ntasks="$GPUS" --ntasks-per-node="$GPUS_PER_NODE" --cpus-per-task="$CPUS_PER_TASK" \
    --kill-on-bad-exit=1 ${SRUN_ARGS:-} \
    "${PYTHON:-python}" -u "$(dirname "$0")/train.py" "$CONFIG" "${WORK_DIR[@]}" \
    --launcher slurm "$@"
