#!/bin/bash
# coturn: a TURN server and clients by others, against which ours is held.
#
#   coturn.sh install
#   coturn.sh client|stun|peer ARGUMENTS...    its client, its STUN client or its echoing peer, as this very process
#   coturn.sh run RUN                          its server, as this very process, with its files in RUN
#
# Environment                     default
#   COTURN_ADDRESS                127.0.0.40       UDP and TCP port 3478; relayed addresses on the ports below
#   COTURN_PORTS                  50000-50999
#   COTURN_USER, COTURN_PASSWORD  lab, lab-secret  in the realm causeway
set -uo pipefail
# shellcheck source=lib.sh
. "$(dirname "$(readlink -f "$0")")/lib.sh"
A=${COTURN_ADDRESS:-127.0.0.40} PORTS=${COTURN_PORTS:-50000-50999}
have() { locked coturn need turnutils_uclient coturn; }
case ${1:-} in
  install) have ;;
  client) shift; have || exit 1; exec turnutils_uclient "$@" ;;
  stun) shift; have || exit 1; exec turnutils_stunclient "$@" ;;
  peer) shift; have || exit 1; exec turnutils_peer "$@" ;;
  run) [ -n "${2:-}" ] || die "which run folder?"
    mkdir -p "$2"; have || exit 1
    exec turnserver -n --listening-ip="$A" --relay-ip="$A" --listening-port=3478 --min-port="${PORTS%-*}" \
      --max-port="${PORTS#*-}" --realm=causeway --lt-cred-mech --user="${COTURN_USER:-lab}:${COTURN_PASSWORD:-lab-secret}" \
      --no-tls --no-dtls --no-cli --allow-loopback-peers --userdb="$2/turndb" --pidfile="$2/turnserver.pid" \
      --log-file=stdout --simple-log </dev/null >"$2/turnserver.log" 2>&1 ;;
  *) sed -n '2,12s/^# \{0,1\}//p' "$0"; exit 2 ;;
esac
