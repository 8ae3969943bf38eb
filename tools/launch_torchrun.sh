#!/usr/bin/env bash
# Start GPUS processes of a tool on this machine (or NNODES machines) with torchrun.
# usage: launch_torchrun.sh TOOL GPUS [arguments of the tool]; see dist_train.sh for the variables.
set -euo pipefail
TOOL=$1 GPUS=$2
shift 2
if ! [[ $GPUS =~ ^[1-9][0-9]*$ ]]; then
    echo "LaunchError: expected a number of GPUs (of processes, without GPUs), got '$GPUS'." >&2
    exit 5
fi
PYTHON=${PYTHON:-python}
NNODES=${NNODES:-1}
NODE_RANK=${NODE_RANK:-0}
MASTER_ADDR=${MASTER_ADDR:-127.0.0.1}
PORT=${PORT:-${MASTER_PORT:-}}
PORT_IS=given
if [[ -z $PORT ]]; then
    PORT=29500
    # several machines must know the same port without asking each other
    [[ $NNODES != 1 ]] || PORT_IS=preferred
fi
if ! [[ $PORT =~ ^[1-9][0-9]{0,4}$ ]] || ((PORT > 65535)); then
    echo "LaunchError: PORT: expected a number from 1 to 65535, got '$PORT'." >&2
    exit 5
fi
# the first node listens on the port
[[ $NODE_RANK == 0 ]] || PORT_IS=elsewhere

exec "$PYTHON" "$(dirname "$0")/launch_torchrun.py" "$PORT" "$PORT_IS" \
    --nnodes="$NNODES" --node_rank="$NODE_RANK" \
    --nproc_per_node="$GPUS" --master_addr="$MASTER_ADDR" \
    "$(dirname "$0")/$TOOL" "$@" --launcher pytorch
