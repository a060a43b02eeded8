#!/usr/bin/env bash
# The benchmark on a bare machine with a GPU: PyTorch and JAX are there, Keras, TensorFlow and a network
# are not. docs/performance.md ("On a GPU") says what it needs and brings back.
#
#     examples/benchmark/gpu.sh pack .gpu cifar10.npz     # where there is a network
#     examples/benchmark/gpu.sh run .gpu out --minutes 8  # there; the same again goes on with it
#
# PYTHON=... names the interpreter; the wheels are those of Python 3.12 on Linux on x86-64.
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
python=${PYTHON:-python3}
wheels=(keras namex optree)  # what the machine lacks
limit=64                     # MiB that can be carried

fail() {
    echo "gpu.sh: $*" >&2
    exit 2
}

pack() {
    [ $# = 2 ] || fail "usage: gpu.sh pack FOLDER CIFAR10.npz"
    [ -f "$2" ] || fail "there is no file $2"
    mkdir -p "$1"
    # Older versions of its own wheels; whatever else is there is somebody's.
    for wheel in "${wheels[@]}"; do rm -f "$1/$wheel"-*.whl; done
    "$python" -m pip download -q --disable-pip-version-check --no-deps --only-binary=:all: \
        --python-version 3.12 --implementation cp --platform manylinux_2_28_x86_64 \
        --platform manylinux_2_17_x86_64 --platform manylinux2014_x86_64 -d "$1" "${wheels[@]}"
    [ "$2" -ef "$1/cifar10.npz" ] || cp "$2" "$1/cifar10.npz"
    local size
    size=$(du -sm --apparent-size "$1" | cut -f1)
    [ "$size" -lt "$limit" ] || fail "$1 has $size MiB, and less than $limit are to be carried:" \
        "take an archive of JPEG files, which read_cifar in tasks.py describes"
    echo "$1: $size MiB, $(cd "$1" && ls | tr '\n' ' ')"
}

run() {
    [ $# -ge 2 ] || fail "usage: gpu.sh run FOLDER OUT [--minutes N] [--rehearse N]"
    local folder=$1 out=$2
    shift 2
    [ -f "$folder/cifar10.npz" ] || fail "there is no $folder/cifar10.npz: gpu.sh pack makes it"
    ls "$folder"/*.whl >/dev/null 2>&1 || fail "there are no wheels in $folder: gpu.sh pack"
    mkdir -p "$out"
    site=$(mktemp -d)
    trap 'rm -rf "$site"' EXIT
    "$python" -m pip install -q --disable-pip-version-check --no-index --no-deps --no-compile \
        --target "$site" "$folder"/*.whl
    export PYTHONPATH="$site:$here/../.." PYTHONUNBUFFERED=1
    {
        nvidia-smi --query-gpu=name,driver_version --format=csv,noheader 2>/dev/null ||
            echo "nvidia-smi finds no GPU"
        "$python" "$here/gpu.py" --data "$folder/cifar10.npz" --out "$out" "$@"
    } 2>&1 | tee -a "$out/log.txt"
}

case ${1:-} in
pack | run) "$@" ;;
*) fail "usage: gpu.sh pack FOLDER CIFAR10.npz | gpu.sh run FOLDER OUT [--minutes N]" ;;
esac
