#!/bin/sh
# Runs the packaged model on this machine. All that is made is made in this folder; nothing is downloaded.
#
# usage: ./run.sh [report] [--json] [--threads 1,4]   the latency on this machine
#        ./run.sh check [--json]                      does it compute what the host computed?
#        ./run.sh infer PHOTO [--json]                the five highest classes of a photo
# environment: PYTHON, the Python to make the environment with (default: the first that fits)
set -eu
here=$(CDPATH='' cd -- "$(dirname -- "$0")" && pwd)
environment=$here/.venv
wanted=@PYTHON@

fail() {
    echo "error: $1" >&2
    exit 2
}

if [ ! -e "$environment/complete" ]; then
    [ "$(uname -m)" = @MACHINE@ ] || fail "this bundle is for @MACHINE@, this machine is $(uname -m)"
    (cd -- "$here" && sha256sum --check --quiet SHA256SUMS >&2) || fail "the bundle is damaged: copy it anew"
    python=${PYTHON:-$(command -v "python$wanted" || echo python3)}
    found=$("$python" -c 'import sys; print("%d.%d" % sys.version_info[:2])') || fail "there is no Python here: $python"
    [ "$found" = "$wanted" ] || fail "this bundle is for Python $wanted, this is $found: package it with --python $found"
    echo "installing into $environment" >&2
    rm -rf "$environment"
    "$python" -m venv --without-pip "$environment"
    # The bundle's own pip: Debian's Python comes without.
    pip=$(echo "$here"/wheels/pip-*.whl)/pip
    "$environment/bin/python" "$pip" --quiet --isolated --no-cache-dir --disable-pip-version-check install \
        --no-index --find-links "$here/wheels" --require-hashes --no-compile --requirement "$here/requirements.txt" ||
        fail "pip could not install the wheels"
    touch "$environment/complete"
fi
exec "$environment/bin/python" "$here/edgeprune.pyz" "$@"
