#!/usr/bin/env bash
# The SDKs that the tests with the build tag sdk drive, at the versions that are pinned in this directory.
#
#   install.sh              install what is missing and print where it is
#   install.sh run CMD...   the same, then run a command with that in its environment
#
# Everything is kept below ${XDG_CACHE_HOME:-~/.cache}/capture/sdk, in a directory for each state of the pins:
# nothing is written into the checkout, and what is there needs no network. Where Chromium is missing and there is
# apt-get, it is installed.
#
# What is printed are the environment variables of the tests: CAPTURE_SDK_NODE and CAPTURE_SDK_BROWSER (with
# node_modules below), CAPTURE_SDK_GO (with a program for each version), CAPTURE_SDK_PYTHON (a virtual environment for
# each version, its directory ends in the version) and CAPTURE_SDK_CHROMIUM.
set -euo pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
sdks=${XDG_CACHE_HOME:-$HOME/.cache}/capture/sdk

say() { printf 'sdk: %s\n' "$*" >&2; }

die() {
  say "$@"
  exit 1
}

need() { command -v "$1" >/dev/null || die "$1 is missing: $2"; }

# part sets dir to the directory that belongs to the pins in the files, and fills it by a function unless it is
# complete: the part's name, the function, what else the content depends on, the files.
part() {
  local name=$1 fill=$2 tool=$3
  shift 3
  dir=$sdks/$name-$({ printf '%s\n' "$tool"; cat "$@"; } | cksum | cut -d ' ' -f 1)
  if [[ -e $dir/complete ]]; then
    return
  fi
  say "installing $name, once"
  rm -rf "$dir"
  mkdir -p "$dir"
  "$fill"
  touch "$dir/complete"
}

# npm_ci installs what the lock file names. It names no registry, so npm asks the one that it is set up with.
npm_ci() {
  cp "$source/package.json" "$source/package-lock.json" "$dir"
  (cd "$dir" && npm ci --ignore-scripts --no-audit --no-fund --no-update-notifier --loglevel=error) >&2
}

install_node() {
  need node "install Node.js 20 or later"
  need npm "install npm, which comes with Node.js"
  source=$here/node
  part node npm_ci "" "$source/package.json" "$source/package-lock.json"
  export CAPTURE_SDK_NODE=$dir
  source=$here/browser
  part browser npm_ci "" "$source/package.json" "$source/package-lock.json"
  export CAPTURE_SDK_BROWSER=$dir
}

venv() {
  python3 -m venv "$dir" >&2 ||
    die "python3 makes no virtual environment: install venv and pip (Debian and Ubuntu: apt-get install python3-venv)"
  "$dir/bin/pip" install --quiet --disable-pip-version-check --no-input --requirement "$source" >&2
}

install_python() {
  local python version
  need python3 "install Python 3.9 or later with venv and pip"
  python=$(command -v python3 && python3 --version) ||
    die "python3 does not run: install Python 3.9 or later with venv and pip"
  CAPTURE_SDK_PYTHON=
  for source in "$here"/python/requirements-*.txt; do
    version=${source##*-}
    version=${version%.txt}
    part "python-$version" venv "$python" "$source"
    CAPTURE_SDK_PYTHON+=${CAPTURE_SDK_PYTHON:+:}$version=$dir
  done
  export CAPTURE_SDK_PYTHON
}

# build_go builds the driver with each version: go.mod pins the newest one, and each further go.mod an older one.
build_go() {
  (cd "$here/go" && go build -o "$dir/1.23.1" . && go build -modfile=v1.5.2.mod -tags v1.5 -o "$dir/1.5.2" .) >&2
}

install_go() {
  need go "install Go"
  part go build_go "$(go version)" "$here"/go/*
  export CAPTURE_SDK_GO=$dir
}

find_chromium() {
  chromium=$(command -v chromium || command -v chromium-browser || command -v google-chrome-stable ||
    command -v google-chrome)
}

install_chromium() {
  if ! find_chromium; then
    local sudo=()
    command -v apt-get >/dev/null || die "Chromium is missing, and so is apt-get: install Chromium or Google Chrome"
    ((EUID == 0)) || sudo=(sudo)
    say "installing Chromium"
    "${sudo[@]}" apt-get -qq -o Acquire::Retries=3 update >&2
    "${sudo[@]}" env DEBIAN_FRONTEND=noninteractive \
      apt-get -qq -y -o Acquire::Retries=3 install --no-install-recommends chromium >&2
    find_chromium || die "apt-get has installed no Chromium: install Chromium or Google Chrome"
  fi
  export CAPTURE_SDK_CHROMIUM=$chromium
}

usage() { die "usage: install.sh [run COMMAND [ARGUMENT...]]"; }

case "${1:-} $#" in
  " 0" | "run "*) ;;
  *) usage ;;
esac
install_node
install_python
install_go
install_chromium
if [[ ${1:-} == run ]]; then
  shift
  (($# > 0)) || usage
  exec "$@"
fi
env | grep '^CAPTURE_SDK_'
