#!/usr/bin/env bash
# What can only be seen on a GPU, in at most ten minutes: no network, no Rust toolchain, this machine's own Python.
#
#   tools/gpu_check.sh               everything; exit status 1 when anything failed
#   tools/gpu_check.sh --only a,d    some parts
#   tools/gpu_check.sh --tiny        a dry run on a CPU: the same code over tiny shapes, whose numbers mean nothing
#
# PYTHON names another Python. TEXT_GENERATION_LAUNCHER names a launcher that was built elsewhere; without it the parts
# that need the router are left out, and named. With OUT set the table is written to $OUT/gpu-status.md as well.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
export PYTHONPATH="server:tools:server/tests:integration-tests:benchmarks${PYTHONPATH:+:$PYTHONPATH}"
export HF_HUB_OFFLINE=1 PYTHONUNBUFFERED=1
exec "${PYTHON:-python3}" -m gpu_check "$@"
