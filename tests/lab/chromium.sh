#!/bin/bash
# Headless Chromium as a WebRTC peer, with a wav file as its microphone.
#
#   chromium.sh install            install it from this machine's release
#   chromium.sh run RUN URL        load a page, as this very process
#
# Environment                     default
#   CHROMIUM_WAV                  from speech.sh   the microphone, played over and over
set -uo pipefail
# shellcheck source=lib.sh
. "$(dirname "$(readlink -f "$0")")/lib.sh"

case ${1:-} in
  install) locked chromium need chromium chromium; exit ;;
  run) [ -n "${3:-}" ] || die "which run folder and which page?"; mkdir -p "$2"; RUN=$(readlink -f "$2") ;;
  *) sed -n '2,8s/^# \{0,1\}//p' "$0"; exit 2 ;;
esac
locked chromium need chromium chromium || exit 1
WAV=${CHROMIUM_WAV:-$("$LAB_DIR/speech.sh" path)} || die "no speech to say"
# Chromium refuses to have a sandbox as root. Addresses are not hidden behind names of mDNS, which no gateway resolves, and
# the loopback device counts, because the whole laboratory is on it.
sandbox=()
[ "$(id -u)" = 0 ] && sandbox=(--no-sandbox)
exec chromium --headless=new "${sandbox[@]}" --user-data-dir="$RUN/profile" --disable-gpu --disable-dev-shm-usage --no-first-run \
  --disable-background-networking --disable-component-update --disable-sync --disable-extensions --enable-logging=stderr \
  --autoplay-policy=no-user-gesture-required --use-fake-ui-for-media-stream --use-fake-device-for-media-stream \
  --use-file-for-fake-audio-capture="$WAV" --disable-features=WebRtcHideLocalIpsWithMdns --allow-loopback-in-peer-connection \
  "$3" </dev/null
