#!/bin/sh
# Checks the types and the style of the viewer's scripts, where node is installed. `make check` calls this script.
set -eu
cd "$(dirname "$0")/.."

if ! command -v npm >/dev/null 2>&1; then
    echo "camlab: node is not installed: the scripts of camlab/viewer/page are not checked"
    exit 0
fi
if [ ! -d node_modules ] || [ package-lock.json -nt node_modules/.package-lock.json ]; then
    npm ci --ignore-scripts --no-audit --no-fund --silent || {
        echo "camlab: the tools in package-lock.json cannot be installed: the scripts of camlab/viewer/page are not checked"
        exit 0
    }
fi
npm run --silent check
