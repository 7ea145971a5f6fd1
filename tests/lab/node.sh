#!/bin/bash
# Node.js of at least version 22, and what the JavaScript client needs of npm.
#
#   node.sh install                find Node, or fetch it from npm into the cache (once: some seconds and 50 MB)
#   node.sh path                   print the folder of the `node` that is used
#   node.sh client                 install what peer/js/package-lock.json names, and bundle the client for browsers
#   node.sh test                   the tests of the client; CAUSEWAY_BIN names the folder of the programs
#   node.sh browser                calls between a page in Chromium and Asterisk; the same
set -uo pipefail
# shellcheck source=lib.sh
. "$(dirname "$(readlink -f "$0")")/lib.sh"
LEAST=22 FETCHED=22.23.3
HOME_DIR=$CACHE/node CLIENT=$LAB_DIR/../../peer/js

# is_new_enough NODE
is_new_enough() {
  local version
  version=$("$1" --version 2>/dev/null) && [ "$(cut -d. -f1 <<<"${version#v}")" -ge "$LEAST" ]
}

# folder: where a node that is new enough is
folder() {
  local each
  for each in "$(command -v node)" "$HOME_DIR"/node_modules/node-linux-*/bin/node; do
    [ -n "$each" ] && is_new_enough "$each" && { dirname "$each"; return 0; }
  done
  return 1
}

install() {
  local machine
  folder >/dev/null && return 0
  need npm npm
  case $(uname -m) in x86_64) machine=x64 ;; aarch64) machine=arm64 ;; *) die "no Node $LEAST for $(uname -m) on npm" ;; esac
  say "fetching Node $FETCHED"
  mkdir -p "$HOME_DIR"
  npm install --prefix "$HOME_DIR" --no-audit --no-fund --loglevel error "node-linux-$machine@$FETCHED" >&2 || die "npm failed"
  folder >/dev/null || die "the Node that npm brought does not run"
}

client() {
  local lock stamp=$CLIENT/node_modules/.lock-of-this
  need npm npm
  lock=$(sha256sum <"$CLIENT/package-lock.json")
  if [ "$(cat "$stamp" 2>/dev/null)" != "$lock" ]; then
    say "fetching the libraries of the JavaScript client"
    npm ci --prefix "$CLIENT" --no-audit --no-fund --loglevel error >&2 || die "npm ci failed"
    echo "$lock" >"$stamp"
  fi
  ( cd "$CLIENT" && npm run --silent build -- --log-level=warning ) >&2 || die "the client could not be bundled"
}

[ $# = 1 ] || { sed -n '2,8s/^# \{0,1\}//p' "$0"; exit 2; }
locked node install || exit 1
PATH=$(folder):$PATH
case $1 in
  install) ;;
  path) folder ;;
  client) locked client client ;;
  test) locked client client && cd "$CLIENT" && npm run --silent test ;;
  browser) locked client client && cd "$CLIENT" && exec node test/browser/run.js ;;
  *) sed -n '2,8s/^# \{0,1\}//p' "$0"; exit 2 ;;
esac
