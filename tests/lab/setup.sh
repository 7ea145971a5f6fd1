#!/bin/bash
# Makes this machine able to build and test Causeway: compilers, cmake (for libopus), and Rust. Quick when all is there.
#
#   setup.sh           what building needs
#   setup.sh lab       also what the laboratory runs: Asterisk, speech, networks behind NATs
set -uo pipefail
# shellcheck source=lib.sh
. "$(dirname "$(readlink -f "$0")")/lib.sh"
LEAST_RUST=1.90

# packages: what is missing of the distribution's packages, one by one
packages() {
  local pair missing=()
  for pair in cc:build-essential c++:build-essential make:build-essential cmake:cmake pkg-config:pkg-config \
    curl:curl ip:iproute2 flock:util-linux setpriv:util-linux git:git; do
    command -v "${pair%%:*}" >/dev/null || missing+=("${pair#*:}")
  done
  [ -d /etc/ssl/certs ] || missing+=(ca-certificates)
  [ "${#missing[@]}" = 0 ] && return 0
  mapfile -t missing < <(printf '%s\n' "${missing[@]}" | sort -u)
  if has_apt; then
    say "installing ${missing[*]}"
    fresh_lists
    as_root apt-get -qq install -y --no-install-recommends "${missing[@]}" >/dev/null || die "apt-get install ${missing[*]} failed"
  elif command -v dnf >/dev/null; then
    say "installing compilers and tools"
    as_root dnf -q -y install gcc gcc-c++ make cmake pkgconf-pkg-config curl ca-certificates iproute util-linux git ||
      die "dnf install failed"
  else
    die "please install what these are in: ${missing[*]}"
  fi
}

rust_is_new_enough() {
  local version
  version=$(cargo --version 2>/dev/null | awk '{ print $2 }')
  [ -n "$version" ] && [ "$(printf '%s\n' "$LEAST_RUST" "$version" | sort -V | head -n 1)" = "$LEAST_RUST" ]
}

rust() {
  [ -x "$HOME/.cargo/bin/cargo" ] && PATH=$HOME/.cargo/bin:$PATH
  rust_is_new_enough && return 0
  say "installing Rust ($LEAST_RUST or later; found: $(cargo --version 2>/dev/null || echo none))"
  if ! command -v rustup >/dev/null && has_apt; then
    fresh_lists
    as_root apt-get -qq install -y --no-install-recommends rustup >/dev/null 2>&1 || say "the distribution has no rustup"
  fi
  if command -v rustup >/dev/null; then
    rustup toolchain install stable --profile minimal --component clippy --component rustfmt && rustup default stable
  else
    curl --proto '=https' --tlsv1.2 -fsS https://sh.rustup.rs |
      sh -s -- -y --profile minimal --component clippy --component rustfmt --no-modify-path
  fi || die "Rust could not be installed"
  hash -r
  rust_is_new_enough || die "still no Rust $LEAST_RUST: $(cargo --version 2>&1)"
}

start=$SECONDS
packages
rust
if [ "${1:-}" = lab ]; then
  # What is done without them says so.
  ( need nft nftables && { [ -x /usr/bin/python3 ] || need no-python3 python3-minimal; } ) ||
    say "going on without networks behind NATs: make nat will not run"
  "$LAB_DIR/speech.sh" install || exit 1
  if ! "$LAB_DIR/asterisk.sh" install; then
    say "going on with baresip as the SIP peer"
    "$LAB_DIR/baresip.sh" install || die "neither Asterisk nor baresip can be had: the interoperation suites need one of them"
  fi
fi
say "ready after $((SECONDS - start)) s ($(rustc --version))"
