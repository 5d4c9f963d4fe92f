#!/bin/sh
# Installs what the tests of the viewer's page need, on Debian and as root: chromium, and node for the checks of its
# scripts and for axe-core. Where that is not possible, it says so; those checks are then skipped with a reason.
set -eu

missing=""
command -v chromium >/dev/null 2>&1 || missing="$missing chromium"
command -v npm >/dev/null 2>&1 || missing="$missing nodejs npm"
[ -n "$missing" ] || exit 0
if [ "$(id -u)" != 0 ] || ! command -v apt-get >/dev/null 2>&1; then
    echo "camlab:$missing: not installed, and only root can install them with apt-get; what needs them is skipped"
    exit 0
fi
export DEBIAN_FRONTEND=noninteractive
# shellcheck disable=SC2086 # the names are words
if apt-get update -qq && apt-get install -y -qq --no-install-recommends $missing >/dev/null; then
    echo "camlab: installed$missing"
else
    echo "camlab:$missing: apt-get cannot install them here; what needs them is skipped"
fi
