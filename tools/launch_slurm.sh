#!/usr/bin/env bash
# Start GPUS processes of a tool through Slurm.
# usage: launch_slurm.sh TOOL PARTITION JOB LOG_DIR [arguments of the tool]; see slurm_train.sh
# for the variables.
set -euo pipefail
TOOL=$1 PARTITION=$2 JOB=$3 LOG_DIR=$4
shift 4
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
PORT=${PORT:-${MASTER_PORT:-}}
if [[ -n $PORT ]]; then
    if ! [[ $PORT =~ ^[1-9][0-9]{0,4}$ ]] || ((PORT > 65535)); then
        echo "LaunchError: PORT: expected a number from 1 to 65535, got '$PORT'." >&2
        exit 5
    fi
    export MASTER_PORT=$PORT
fi
ASKED=(--ntasks="$GPUS" --ntasks-per-node="$GPUS_PER_NODE" --cpus-per-task="$CPUS_PER_TASK")
WHAT=GPUs
if ! GRES=$(sinfo --noheader --partition="$PARTITION" --format=%G); then
    echo "LaunchError: sinfo, which knows the partitions of Slurm, failed." >&2
    exit 5
fi
if [[ -z $GRES ]]; then
    echo "LaunchError: partition '$PARTITION' is unknown; there are:" \
        "$(sinfo --noheader --format=%R | paste -sd ' ')." >&2
    exit 5
elif [[ $GRES == *gpu* ]]; then
    ASKED+=(--gres=gpu:"$GPUS_PER_NODE")
else
    WHAT='CPU processes (the partition has no GPUs)'
fi
echo "Asking partition $PARTITION for $GPUS $WHAT, $GPUS_PER_NODE on each of" \
    "$((GPUS / GPUS_PER_NODE)) node(s), with $CPUS_PER_TASK CPU(s) each." >&2
TOOLS=$(cd "$(dirname "$0")" && pwd)
COMMAND=("${PYTHON:-python}" -u "$TOOLS/$TOOL" "$@" --launcher slurm)

if [[ ${BATCH:-0} != 1 ]]; then
    # SRUN_ARGS holds several arguments, hence unquoted
    # shellcheck disable=SC2086
    exec srun --partition="$PARTITION" --job-name="$JOB" "${ASKED[@]}" --kill-on-bad-exit=1 \
        ${SRUN_ARGS:-} "${COMMAND[@]}"
fi

mkdir -p "$LOG_DIR"
# shellcheck disable=SC2086
ID=$(sbatch --parsable --partition="$PARTITION" --job-name="$JOB" "${ASKED[@]}" --requeue \
    --signal=USR1@120 --open-mode=append --output="$LOG_DIR/slurm-%j.out" ${SRUN_ARGS:-} <<END
#!/usr/bin/env bash
# The processes follow these signals: they save and end with 75.
trap : TERM USR1
code=0
srun --cpus-per-task=$CPUS_PER_TASK --kill-on-bad-exit=1 $(printf '%q ' "${COMMAND[@]}") || code=\$?
# 75: stopped, with something saved since the start. 143: SIGTERM, by which a job is pre-empted, ended
# a process that had saved nothing, such as test.py; it may have its whole time next time. Not 138:
# SIGUSR1 announces the end of the time, and the next time would end so too.
goes_on() {  # unless it was cancelled; squeue may fail to answer
    local state
    state=\$(squeue --noheader --jobs=\$SLURM_JOB_ID --format=%T) || state=
    [[ \$state =~ ^(RUNNING|SIGNALING)?\$ ]]
}
if [[ \$code =~ ^(75|143)\$ ]] && goes_on; then
    echo "Job \$SLURM_JOB_ID goes back to the queue."
    scontrol requeue "\$SLURM_JOB_ID"
fi
exit \$code
END
)
ID=${ID%%;*}  # behind it: the cluster, where there are several
echo "Job $ID. Log: $LOG_DIR/slurm-$ID.out. Cancel: scancel $ID"
