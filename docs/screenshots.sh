#!/usr/bin/env bash
# Draws docs/images/tensorboard_*.png from docs/data/reference; run from the repository's root.
# Needs tensorboard, curl and Chromium (on Debian: apt install chromium).
set -euo pipefail
port=6163
tensorboard --logdir docs/data/reference --host 127.0.0.1 --port "$port" 2>/dev/null &
server=$!
trap 'kill "$server"' EXIT
page="http://127.0.0.1:$port/"
curl -s --retry 60 --retry-delay 1 --retry-connrefused -o /dev/null "$page"
until curl -s "${page}data/runs" | grep -q plateau; do sleep 1; done

draw() {  # tab, width,height, file
    chromium --headless --no-sandbox --disable-gpu --hide-scrollbars --virtual-time-budget=20000 \
        --window-size="$2" --screenshot="docs/images/tensorboard_$3.png" "$page#$1" 2>/dev/null
}
draw "custom_scalars&_smoothingWeight=0" 1700,1060 scalars
draw "text&regexInput=%5Eauto%24" 1400,760 text
draw hparams 2000,500 hparams
