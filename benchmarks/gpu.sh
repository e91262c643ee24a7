#!/usr/bin/env bash
# Measure embedding on a GPU, without network, in less than ten minutes; the tables are for benchmarks/RESULTS.md.
#
#   benchmarks/gpu.sh [--device cuda|cpu] [--minutes 8] [--out FOLDER] [--source ZIP] [--wheels FOLDER] [options of benchmarks.gpu]
#
#   --device cpu     the same with small numbers, to try the script where there is no GPU
#   --minutes 8      what would start later is skipped, what runs then is stopped; the tables hold what was measured
#   --out FOLDER     for gpu.md, rows.jsonl and the log (default: $OUT, or else a new folder in $TMPDIR)
#   --source ZIP     JPEGs (default: shared/data/tiny-imagenet-200-mini.zip here or beside the repository, or else drawings)
#   --wheels FOLDER  packages that Python does not have, installed for this run only (see benchmarks/README.md)
#
# Paths are relative to the repository. PYTHON names the Python (default: the first of .venv/bin/python and python3 that has
# torch).
set -uo pipefail
cd "$(dirname "$0")/.."

device=cuda minutes=8 out=${OUT:-} source="" wheels="" options=()
while [ $# -gt 0 ]; do
    case $1 in
        --device) device=$2; shift 2 ;;
        --minutes) minutes=$2; shift 2 ;;
        --out) out=$2; shift 2 ;;
        --source) source=$2; shift 2 ;;
        --wheels) wheels=$2; shift 2 ;;
        -h | --help) sed -n '2,/^set /{/^#/s/^# \{0,1\}//p}' "$0"; exit ;;
        *) options+=("$1"); shift ;;
    esac
done
ends=$(($(date +%s) + minutes * 60))

fail() { echo "error: $1" >&2; exit 1; }
has() { "$1" -c "import importlib.util, sys; sys.exit(importlib.util.find_spec('$2') is None)" 2>/dev/null; }

python=${PYTHON:-}
for candidate in .venv/bin/python python3; do
    if [ -z "$python" ] && has "$candidate" torch; then python=$candidate; fi
done
[ -n "$python" ] || fail "expected a Python with torch, found none in .venv and no python3 with it; name one: PYTHON=/path/to/python $0"

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
if [ -n "$wheels" ]; then
    "$python" -m pip install --quiet --disable-pip-version-check --no-index --no-deps --target "$work/site" "$wheels"/*.whl \
        || fail "the wheels in $wheels cannot be installed for $("$python" --version)"
fi
export PYTHONPATH="$PWD:$work/site${PYTHONPATH:+:$PYTHONPATH}" PYTHONUNBUFFERED=1 PYTHONWARNINGS=ignore
# a new folder: what an earlier run compiled would make the seconds of compiling too few
export TORCHINDUCTOR_CACHE_DIR=$work/inductor TRITON_CACHE_DIR=$work/triton
missing=""
for package in torch torchvision open_clip timm transformers tokenizers safetensors omegaconf numpy PIL pyarrow ftfy regex tqdm \
    platformdirs tenacity fsspec; do
    has "$python" $package || missing="$missing $package"
done
[ -z "$missing" ] || fail "$python does not have$missing; name another (PYTHON=/path/to/python $0) or give their wheels (--wheels FOLDER, see benchmarks/README.md)"
if [ "$device" = cuda ]; then
    "$python" -c "import sys, torch; sys.exit(not torch.cuda.is_available())" \
        || fail "the torch of $python finds no GPU; try nvidia-smi, or try the script with $0 --device cpu"
fi

for candidate in ../shared/data/tiny-imagenet-200-mini.zip shared/data/tiny-imagenet-200-mini.zip; do
    if [ -z "$source" ] && [ -f "$candidate" ]; then source=$candidate; fi
done
out=${out:-$(mktemp -d)}
mkdir -p "$out"
rows=$work/rows.jsonl log=$out/log

# part SHARE NAME ARGUMENTS...: run a part of benchmarks.gpu in its share (percent) of the time that is left
part() {
    local left=$((ends - $(date +%s))) share=$1 name=$2
    local limit=$((left * share / 100))
    shift 2
    echo "$name: at most $limit s" >&2
    if [ "$limit" -ge 5 ]; then
        timeout --kill-after 5 "$((limit + 5))" "$python" -m benchmarks.gpu "$1" "$work" "${@:2}" --device "$device" \
            --until $(($(date +%s) + limit)) ${source:+--source "$source"} "${options[@]}" 2>>"$log" && return
        local status=$? reason
        reason=$(tail -n 1 "$log" | tr -d '"\\|' | cut -c 1-200)
        [ $status -ne 124 ] && [ $status -ne 137 ] || reason="stopped after $limit s"
    else
        local reason="no time left"
    fi
    echo "{\"table\": \"stopped\", \"cells\": [\"$name\", \"$reason\"]}" >>"$rows"
    return 1
}

part 30 prepare prepare | tee "$out/gpu.md"
part 35 "measure mobilenet" measure mobilenet
part 50 "measure clip" measure clip
part 50 "compare mobilenet" compare mobilenet
part 95 "compare clip" compare clip
{ echo "Images from $(basename "${source:-this project\'s drawings}"), 64 px; random weights; medians of interleaved rounds."; echo; "$python" -m benchmarks.gpu table "$work"; } >>"$out/gpu.md"
cp "$rows" "$out" 2>/dev/null
cat "$out/gpu.md"
echo "written to $out/gpu.md" >&2
