#!/usr/bin/env bash
# Installs and runs OpenStack Zaqar, so that it can be measured beside this service.
#
#   zaqar.sh install DIR                 creates a Python environment in DIR
#   zaqar.sh serve DIR PORT URI          serves on 127.0.0.1:PORT until SIGTERM or SIGINT
#
# URI is redis://HOST:PORT, with /N for database N, or mongodb://HOST:PORT,HOST:PORT/. Zaqar keeps all
# data there, in MongoDB in databases whose names begin with zaqar. It does not delete existing data:
# empty the store first. Runs as root or as a user with sudo. Running it again installs nothing twice.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)

usage() {
    echo "usage: zaqar.sh install DIR | zaqar.sh serve DIR PORT URI" >&2
    exit 2
}

as_root() { if [ "$(id -u)" -eq 0 ]; then "$@"; else sudo "$@"; fi; }

install() {
    local dir=$1 missing=()
    command -v python3 >/dev/null || missing+=(python3)
    python3 -c 'import ensurepip, venv' 2>/dev/null || missing+=(python3-venv)
    if [ ${#missing[@]} -gt 0 ]; then
        as_root apt-get update -qq
        as_root apt-get install -y -qq --no-install-recommends "${missing[@]}"
    fi

    # Created again when the versions change.
    local wanted=$here/requirements.txt
    if ! cmp -s "$wanted" "$dir/installed.txt"; then
        python3 -m venv --clear "$dir"
        "$dir/bin/pip" install --quiet --disable-pip-version-check -r "$wanted"
        cp "$wanted" "$dir/installed.txt"
    fi
}

# Prints Zaqar's name for the kind of store at a URI, and the URI in the form that Zaqar expects.
store() {
    local uri=$1
    case $uri in
        redis://*)
            # Zaqar expects the number of the database as an option. Its default timeout of 0.1 s for
            # a reply of Redis would cause errors on a slow disk.
            if [[ $uri =~ ^(redis://[^/?]+)/([0-9]+)$ ]]; then
                uri="${BASH_REMATCH[1]}?dbid=${BASH_REMATCH[2]}"
            fi
            if [[ $uri == *\?* ]]; then uri+="&socket_timeout=30"; else uri+="?socket_timeout=30"; fi
            echo redis "$uri"
            ;;
        mongodb://*)
            # For a URI with a replica set, Zaqar uses a client class that pymongo has removed. The
            # regular client discovers the replica set by itself.
            echo mongodb "$(sed -E 's/([?&])replicaSet=[^&]*&?/\1/; s/[?&]$//' <<<"$uri")"
            ;;
        *) usage ;;
    esac
}

serve() {
    local dir port=$2 stored driver uri threads=1
    dir=$(cd "$1" && pwd)
    stored=$(store "$3")
    read -r driver uri <<<"$stored"
    if [ "$driver" = mongodb ]; then threads=8; fi

    # No authentication, since auth_strategy is not set. The queues are in the same store: with SQLite,
    # their look-up takes nearly half the time of a post, and the migrations of that store are for
    # MySQL. In MongoDB, Zaqar always writes with the concern "majority"; "unreliable" only allows a URI
    # that does not request it.
    cat >"$dir/zaqar.conf" <<CONF
[DEFAULT]
unreliable = True
pooling = False
admin_mode = False
default_log_levels = zaqar=WARNING,oslo_policy=WARNING,osprofiler=CRITICAL

[drivers]
transport = wsgi
message_store = $driver
management_store = $driver

[drivers:message_store:$driver]
uri = $uri

[drivers:management_store:$driver]
uri = $uri

[profiler]
enabled = False
CONF
    # The default rules. Without the file, Zaqar would look for it on every request.
    echo '{}' >"$dir/policy.yaml"

    # Two processes. On Redis they have one thread each, since threads of one process block each other.
    # On MongoDB, a write takes so long that other threads should run meanwhile. The server closes the
    # connection after each response and announces that. The router of uWSGI can keep connections open,
    # but lists and claims took 40 ms longer with it, with or without tcp-nodelay, and it closes the
    # connection after each 204 as well.
    cat >"$dir/uwsgi.ini" <<INI
[uwsgi]
http-socket = 127.0.0.1:$port
add-header = Connection: close
module = zaqar.transport.wsgi.app:application
virtualenv = $dir
master = true
processes = 2
threads = $threads
lazy-apps = true
enable-threads = true
thunder-lock = true
listen = 1024
need-app = true
die-on-term = true
no-orphans = true
disable-logging = true
INI
    # Zaqar looks for its configuration in the home directory.
    cd "$dir"
    HOME=$dir exec "$dir/bin/pyuwsgi" --ini "$dir/uwsgi.ini"
}

case "${1-}" in
    install) [ $# -eq 2 ] || usage; install "$2" ;;
    serve) [ $# -eq 4 ] || usage; serve "$2" "$3" "$4" ;;
    *) usage ;;
esac
