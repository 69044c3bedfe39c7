#!/usr/bin/env bash
# Writes the lock files of the Python side from pyproject.toml. Needs uv on PATH.
set -euo pipefail
cd "$(dirname "$0")/.."

compile() {
    # Neither the index nor this machine shows in the files.
    uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-header --no-annotate \
        --no-emit-index-url --no-emit-find-links "$@"
}

compile pyproject.toml --extra build --extra test --extra dev --output-file requirements/test.lock
# The same versions, fewer of them.
compile pyproject.toml --extra build --constraint requirements/test.lock --output-file requirements/runtime.lock
# What goldens are made with: a part of it that can be installed alone.
printf '%s\n' transformers torch torchvision pillow timm numpy safetensors jinja2 \
    | compile - --constraint requirements/test.lock --output-file requirements/reference.lock
# What the recipe of the embedded model draws with, beside the test environment.
echo 'resvg-py==0.5.0' | compile - --no-deps --output-file requirements/embedded.lock
echo 'text-generation==0.7.0' | compile - --no-deps --output-file requirements/no-deps.lock
# The clients that the integration tests drive, in environments of their own: they do not agree on versions.
for list in requirements/clients/*.in; do
    compile "$list" --output-file "${list%.in}.lock"
done
