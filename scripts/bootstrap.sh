#!/bin/sh
# Creates .venv and installs the pinned requirements and camlab in it. `make install` calls this script.
# Needs Python 3.11-3.13, or any Python with pip to download one with uv. Changes nothing outside the checkout.
set -eu
cd "$(dirname "$0")/.."

say() { printf 'camlab: %s\n' "$*"; }
die() { say "$*" >&2; exit 1; }

# Each candidate is run, not only found: a version manager's shim may point to a missing interpreter.
find_python() { # $1: the condition it must meet
    for name in .venv/bin/python ${PYTHON:-} python3.13 python3.12 python3.11 python3 python; do
        "$name" -c "import sys; assert $1; print(sys.executable)" 2>/dev/null && return
    done
    return 1
}
pip_of() { "$1" -m pip --version >/dev/null 2>&1; }

supported='(3, 11) <= sys.version_info[:2] <= (3, 13)'
if [ -L .venv/bin/python ] || [ -e .venv/bin/python ]; then
    .venv/bin/python -c "import sys; assert $supported" 2>/dev/null ||
        die ".venv holds no working Python 3.11-3.13: remove it (rm -r .venv) and run this again"
fi

python=$(find_python "$supported") || python=
uv=
for name in uv "${HOME:-}/.local/bin/uv" .venv-tools/bin/uv; do
    if "$name" --version >/dev/null 2>&1; then uv=$name; break; fi
done
if [ -z "$uv" ] && [ -z "$python" ]; then # uv can download a Python
    any=$(find_python 'sys.version_info >= (3, 8) and __import__("pip")') ||
        die "Python 3.11, 3.12 or 3.13 is needed, or uv, which downloads one (https://docs.astral.sh/uv); neither was found"
fi

case "$(uname -s)" in
    Linux) size="torch from PyPI is the CUDA build: about 3.2 GB to download (less what is cached), 5.7 GB on disk" ;;
    *) size="under 1 GB to download (less what is cached)" ;;
esac
say "installing the packages in .venv; this happens once. $size"

if [ -z "$uv" ] && [ -z "$python" ]; then
    say "found no Python 3.11-3.13: installing uv, which downloads one"
    "$any" -m pip install --quiet --target .venv-tools uv ||
        die "uv could not be installed: install Python 3.11, 3.12 or 3.13"
    uv=.venv-tools/bin/uv
fi
if [ -n "$uv" ]; then
    [ -x .venv/bin/python ] || "$uv" venv --quiet --allow-existing --python "${python:-3.12}" .venv ||
        die "no Python 3.11-3.13 here, and uv could not download one: install Python 3.11, 3.12 or 3.13"
    install() { "$uv" pip install --python .venv/bin/python "$@"; }
else
    if ! pip_of .venv/bin/python && ! "$python" -m venv .venv >/dev/null 2>&1; then # Debian and Ubuntu without python3-venv
        "$python" -m venv --without-pip .venv || die "$python cannot make .venv: install python3-venv (or uv)"
        pip_of "$python" || die "$python has neither pip nor ensurepip: install python3-venv (or uv)"
        pip_of .venv/bin/python || "$python" -m pip --python .venv/bin/python install --quiet pip
    fi
    install() { .venv/bin/python -m pip install --no-input --disable-pip-version-check "$@"; }
fi
install --require-hashes -r requirements.txt
install --no-deps --no-build-isolation --editable .
touch .venv/installed
