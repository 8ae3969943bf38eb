#!/usr/bin/env bash
# Compute the image embeddings of a config ahead on several GPUs; the variables are those of
# dist_train.sh.
# usage: [PORT=port] ./tools/dist_cache.sh CONFIG GPUS [arguments of cache_embeddings.py]
set -euo pipefail
if [[ $# -lt 2 ]]; then
    echo "usage: [PORT=port] $0 CONFIG GPUS [arguments of cache_embeddings.py]" >&2
    exit 2
fi
CONFIG=$1 GPUS=$2
shift 2
exec "$(dirname "$0")/launch_torchrun.sh" cache_embeddings.py "$GPUS" "$CONFIG" "$@"
