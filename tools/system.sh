#!/bin/sh
# What the build, the demo and the tests need from the system. As root on Debian, missing packages are installed;
# anybody else is told what is missing. Fails only if there is no way to go on.
# Usage: tools/system.sh [PYTHON]
set -u
python=${1:-python3}
PATH=$PATH:/usr/sbin:/sbin
packages=

need() { packages="$packages $1"; }
has() { command -v "$1" >/dev/null 2>&1; }
python_is_new() { "$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; }
has_venv() { "$python" -c 'import ensurepip, venv' 2>/dev/null; }
has_compiler() { "$python" "$(dirname "$0")/can_compile.py" 2>/dev/null; }

look() {
    packages=
    has "$python" || need python3
    has_venv || need python3-venv
    has_compiler || need "gcc libc6-dev python3-dev"
    has curl || need curl
    has nft || need nftables
    has ip || need iproute2
    has ethtool || need ethtool
    has tcpdump || need tcpdump
}

look
if [ -n "$packages" ] && [ "$(id -u)" = 0 ] && has apt-get; then
    echo "installing Debian packages:$packages"
    export DEBIAN_FRONTEND=noninteractive
    # shellcheck disable=SC2086  # a list of words
    { apt-get update -q && apt-get install -q -y --no-install-recommends $packages; } </dev/null || echo "apt-get failed" >&2
    look
fi

if ! python_is_new; then
    echo "Chimney needs Python 3.11 or newer as '$python'; name another one with: make PYTHON=/path/to/python3" >&2
    exit 1
fi
if [ ! -x .venv/bin/python ] && ! has_venv; then
    echo "'$python' cannot make a virtual environment (no ensurepip). On Debian: apt-get install python3-venv" >&2
    exit 1
fi
if [ -n "$packages" ]; then
    echo "missing:$packages (as root: apt-get install$packages). Going on without; 'chimney doctor' tells what that means." >&2
fi
