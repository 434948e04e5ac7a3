#!/usr/bin/env bash
# setup.sh demo|test|lint|bench|soak: installs what a target needs, by package name, or,
# without the right to, names exactly what to install.
set -euo pipefail
want=${1:?demo, test, lint, bench or soak}

need_go() {
  command -v go >/dev/null || { echo "please install Go 1.26 or newer (package golang-go, or newer by hand)" >&2; exit 1; }
}

# apt_need COMMAND PACKAGE…: the packages that give a command.
missing=()
apt_need() {
  local cmd=$1; shift
  command -v "$cmd" >/dev/null 2>&1 || missing+=("$@")
}

need_go
if [ "$want" != lint ]; then
  apt_need python3 python3 python3-pip python3-venv
  apt_need npm npm
  if command -v python3 >/dev/null; then
    python3 -c 'import venv, ensurepip' 2>/dev/null || missing+=(python3-venv)
    python3 -m pip --version >/dev/null 2>&1 || missing+=(python3-pip)
  fi
  # The engine's binding loads libffi; llama.cpp itself wants libstdc++ and libgomp.
  ldconfig -p 2>/dev/null | grep -q 'libffi\.so\.8' || missing+=(libffi8)
  ldconfig -p 2>/dev/null | grep -q 'libstdc++\.so\.6' || missing+=(libstdc++6)
fi
if [ "$want" = soak ]; then # llama.cpp's server is built
  apt_need cmake cmake
  apt_need g++ g++
fi
if [ "$want" = test ] || [ "$want" = soak ]; then
  apt_need strace strace
  apt_need ip iproute2
  apt_need xorriso xorriso
  apt_need bsdtar libarchive-tools
  apt_need zbarimg zbar-tools
  apt_need rsvg-convert librsvg2-bin
  apt_need age age
  apt_need softhsm2-util softhsm2
  apt_need gcc gcc libc6-dev
  apt_need skopeo skopeo
  apt_need podman podman
  apt_need clamd clamav-daemon clamav
  apt_need cargo cargo
  apt_need mvn maven
  apt_need javac default-jdk-headless
fi
if [ "$want" = bench ]; then
  apt_need nginx nginx-light
  apt_need wrk wrk
fi
if [ ${#missing[@]} -gt 0 ]; then
  if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; then
    echo "installing: ${missing[*]}" >&2
    apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -qq -y --no-install-recommends "${missing[@]}" >&2
  else
    echo "please install, by the names of Debian's packages: ${missing[*]}" >&2
    echo "for example: sudo apt-get install ${missing[*]}" >&2
    exit 1
  fi
fi
