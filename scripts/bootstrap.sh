#!/bin/sh
# Creates .venv and installs the pinned packages and camlab in it. `make install` calls this script.
# It needs Python 3.11-3.13, or uv, which downloads a Python, or any Python from 3.8 with pip, which installs uv.
# It changes nothing outside the checkout.
set -eu
cd "$(dirname "$0")/.."

say() { printf 'camlab: %s\n' "$*"; }
die() { say "$*" >&2; exit 1; }

# Prints the path of the first Python that meets a condition. Each candidate is run, since a version manager's shim may point
# to a missing interpreter.
find_python() { # $1: the condition
    for name in .venv/bin/python ${PYTHON:-} python3.13 python3.12 python3.11 python3 python; do
        "$name" -c "import sys; assert $1; print(sys.executable)" 2>/dev/null && return
    done
    return 1
}
pip_of() { "$1" -m pip --version >/dev/null 2>&1; }

supported='(3, 11) <= sys.version_info[:2] <= (3, 13)'
if [ -L .venv/bin/python ] || [ -e .venv/bin/python ]; then
    .venv/bin/python -c "import sys; assert $supported" 2>/dev/null ||
        die ".venv has no working Python 3.11-3.13: remove .venv (rm -r .venv) and run the command again"
fi

python=$(find_python "$supported") || python=
uv=
for name in uv "${HOME:-}/.local/bin/uv" .venv-tools/bin/uv; do
    if "$name" --version >/dev/null 2>&1; then uv=$name; break; fi
done
if [ -z "$uv" ] && [ -z "$python" ]; then # uv could download a Python, and pip could install uv
    any=$(find_python 'sys.version_info >= (3, 8) and __import__("pip")') ||
        die "neither Python 3.11, 3.12 or 3.13 was found, nor uv, which downloads one: install either (https://docs.astral.sh/uv)"
fi

case "$(uname -s)" in
    Linux) size="torch from PyPI is the CUDA build: about 3.2 GB to download (less if packages are cached), 5.7 GB on disk" ;;
    *) size="less than 1 GB to download (less if packages are cached)" ;;
esac
say "installing the packages in .venv, which happens only once; $size"

if [ -z "$uv" ] && [ -z "$python" ]; then
    say "found no Python 3.11-3.13: installing uv, which downloads one"
    "$any" -m pip install --quiet --target .venv-tools uv ||
        die "uv could not be installed: install Python 3.11, 3.12 or 3.13"
    uv=.venv-tools/bin/uv
fi
if [ -n "$uv" ]; then
    [ -x .venv/bin/python ] || "$uv" venv --quiet --allow-existing --python "${python:-3.12}" .venv ||
        die "there is no Python 3.11-3.13, and uv could not download one: install Python 3.11, 3.12 or 3.13"
    install() { "$uv" pip install --python .venv/bin/python "$@"; }
else
    if ! pip_of .venv/bin/python && ! "$python" -m venv .venv >/dev/null 2>&1; then # as on Debian and Ubuntu without python3-venv
        "$python" -m venv --without-pip .venv || die "$python cannot create .venv: install python3-venv (or uv)"
        pip_of "$python" || die "$python has neither pip nor ensurepip: install python3-venv (or uv)"
        pip_of .venv/bin/python || "$python" -m pip --python .venv/bin/python install --quiet pip
    fi
    install() { .venv/bin/python -m pip install --no-input --disable-pip-version-check "$@"; }
fi
install --require-hashes -r requirements.txt
install --no-deps --no-build-isolation --editable .
touch .venv/installed
