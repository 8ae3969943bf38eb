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
PORT=${PORT:-${MASTER_PORT:-29500}}
MASTER_ADDR=${MASTER_ADDR:-127.0.0.1}
if ! [[ $PORT =~ ^[1-9][0-9]{0,4}$ ]] || ((PORT > 65535)); then
    echo "LaunchError: PORT: expected a number from 1 to 65535, got '$PORT'." >&2
    exit 5
fi
# the first node listens on the port: find out now, not from a stack trace of every process
if [[ $NODE_RANK == 0 ]] && ! "$PYTHON" - "$PORT" <<'CHECK'; then
import socket, sys
with socket.socket() as listener:
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind(('', int(sys.argv[1])))
    except OSError:
        sys.exit(1)
CHECK
    echo "LaunchError: port $PORT is taken or cannot be used, by another job perhaps:" \
        "choose another one, e.g. PORT=$((PORT < 65535 ? PORT + 1 : 29501))." >&2
    exit 5
fi
exec "$PYTHON" -m torch.distributed.run --nnodes="$NNODES" --node_rank="$NODE_RANK" \
    --nproc_per_node="$GPUS" --master_addr="$MASTER_ADDR" --master_port="$PORT" \
    "$(dirname "$0")/$TOOL" "$@" --launcher pytorch
