#!/usr/bin/env bash
# small-llama on local: dp=2 micro_batch=1 zero=1 recompute=none
# On the machine: HEAD=name-of-one-of-them bash launch.sh [options of the training]
# OUTPUT is the folder for results and checkpoints; all nodes must see it.
set -euo pipefail
cd "$(dirname "$0")"
HEAD="${HEAD:-localhost}"
PORT="${PORT:-29400}"
OUTPUT="${OUTPUT:-runs/train}"
exec torchrun \
  --nnodes=1 \
  --nproc-per-node=2 \
  --rdzv-backend=c10d \
  --rdzv-endpoint="$HEAD:$PORT" \
  --rdzv-id=${JOB_ID:-meshwright-small-llama} \
  --rdzv-conf=join_timeout=600 \
  --max-restarts=3 \
  -m \
  executor.training \
  plan.json --timeout=10min --checkpoint-every=100 --resume --output "$OUTPUT" "$@"
