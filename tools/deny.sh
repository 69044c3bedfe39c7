#!/usr/bin/env bash
# Licences, bans and sources of the Rust dependencies, and known advisories where their database can be reached.
# Usage: deny.sh FOLDER. Installs cargo-deny into FOLDER when there is none; that takes some minutes, once.
set -euo pipefail

readonly VERSION=0.20.2
readonly ADVISORIES=https://github.com/RustSec/advisory-db
tools=${1:?folder for cargo-deny}

if command -v cargo-deny >/dev/null; then
    deny=$(command -v cargo-deny)
else
    deny=$tools/bin/cargo-deny
    # Its own profile: an unoptimised build is ready sooner and fast enough.
    [ -x "$deny" ] || cargo install cargo-deny --version "$VERSION" --locked --debug --root "$tools"
fi

"$deny" --locked check bans licenses sources

if timeout 20 git ls-remote --exit-code "$ADVISORIES" HEAD >/dev/null 2>&1; then
    "$deny" --locked check advisories
else
    echo "skipped: advisories, because $ADVISORIES cannot be reached from here"
fi
