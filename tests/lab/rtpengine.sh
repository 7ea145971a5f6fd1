#!/bin/bash
# rtpengine, a media relay and transcoder, in user space: what the bench compares with.
#
#   rtpengine.sh install
#   rtpengine.sh run RUN           run it as this very process, logging to RUN/rtpengine.log
#
# Environment                     default
#   RTPENGINE_ADDRESS             127.0.0.41       control (ng protocol) on UDP port 2223, media on the ports below
#   RTPENGINE_RTP                 51000-55999
set -uo pipefail
# shellcheck source=lib.sh
. "$(dirname "$(readlink -f "$0")")/lib.sh"
A=${RTPENGINE_ADDRESS:-127.0.0.41} PORTS=${RTPENGINE_RTP:-51000-55999}
case ${1:-} in
  install) locked rtpengine need rtpengine rtpengine-daemon ;;
  run) [ -n "${2:-}" ] || die "which run folder?"
    mkdir -p "$2"; locked rtpengine need rtpengine rtpengine-daemon || exit 1
    exec rtpengine --config-file=none --table=-1 --interface="$A" --listen-ng="$A:2223" --port-min="${PORTS%-*}" \
      --port-max="${PORTS#*-}" --foreground --log-stderr --log-level=4 --delete-delay=0 2>"$2/rtpengine.log" </dev/null ;;
  *) sed -n '2,9s/^# \{0,1\}//p' "$0"; exit 2 ;;
esac
