#!/bin/sh
# Measure everything that a GPU can show within 12 minutes: benchmarks/gpu.sh [options of gpu.py]
# Runs from a checkout without installation. Keep what it prints.
cd "$(dirname "$0")/.." || exit
PYTHONPATH=src exec "${PYTHON:-python3}" -u benchmarks/gpu.py "$@"
