#!/bin/bash
# Kamailio, a SIP proxy and registrar, from this machine's release or Debian's next; unpacked into the cache.
#
#   kamailio.sh install            fetch it (once: some seconds and 30 MB)
#   kamailio.sh run RUN            write the configuration and run as this very process
#
# Environment                     default
#   PROXY_ADDRESS                 127.0.0.42        SIP over UDP and TCP on port 5060 of this address
#   NEXT_HOP                      127.0.0.10:5060   where numbers go that nobody has registered
#   KAMAILIO_CONFIG               kamailio          `answer`: no proxy but a user agent that answers or refuses every call
#   KAMAILIO_MEMORY               32                MB that its processes share
#
# It stays in the dialog (Record-Route with lr). Who registers needs no password; whom nobody knows is answered 404.
set -uo pipefail
# shellcheck source=lib.sh
. "$(dirname "$(readlink -f "$0")")/lib.sh"
HOME_DIR=$CACHE/kamailio
LEAVE_OUT='adduser|passwd|base-passwd|debconf|dpkg|login.*|libpam.*|tzdata|perl.*|libperl.*|python.*|libpython.*|lsb-base|init.*|sysv.*|mysql.*|libmysql.*|libmaria.*|libc-gconv.*|libsemanage.*'

binary() {
  KAMAILIO=("$(loader "$HOME_DIR")" --inhibit-cache --library-path "$(libraries "$HOME_DIR")" "$HOME_DIR/usr/sbin/kamailio")
  for MODULES in "$HOME_DIR"/usr/lib/*/kamailio/modules "$HOME_DIR/usr/lib/kamailio/modules"; do [ -d "$MODULES" ] && break; done
  [ ! -d "$MODULES/../." ] || KAMAILIO[3]+=":$(dirname "$MODULES")"
}

runs() { [ -x "$HOME_DIR/usr/sbin/kamailio" ] && binary && "${KAMAILIO[@]}" -v >/dev/null 2>&1; }

install() {
  local suite
  runs && return 0
  has_apt || die "Kamailio cannot be fetched: this machine has no apt"
  for suite in ${KAMAILIO_SUITES:-host sid}; do
    if unpack "$suite" "$HOME_DIR" "$LEAVE_OUT" kamailio && runs; then
      say "$("${KAMAILIO[@]}" -v | head -n 1) ($suite) is in $HOME_DIR"
      return 0
    fi
    say "no working Kamailio from $suite"
  done
  die "Kamailio cannot be had on this machine"
}

case ${1:-} in
  install) locked kamailio install; exit ;;
  run) [ -n "${2:-}" ] || die "which run folder?"; mkdir -p "$2"; RUN=$(readlink -f "$2") ;;
  *) sed -n '2,13s/^# \{0,1\}//p' "$0"; exit 2 ;;
esac
locked kamailio install || exit 1
binary
sed -e "s#@ADDRESS@#${PROXY_ADDRESS:-127.0.0.42}#g" -e "s#@NEXT_HOP@#${NEXT_HOP:-127.0.0.10:5060}#g" \
  -e "s#@MODULES@#$MODULES#g" "$LAB_DIR/kamailio/${KAMAILIO_CONFIG:-kamailio}.cfg" >"$RUN/kamailio.cfg"
echo $$ >"$RUN/kamailio.pid"
exec "${KAMAILIO[@]}" -DD -E -f "$RUN/kamailio.cfg" -P "$RUN/own.pid" -Y "$RUN" -m "${KAMAILIO_MEMORY:-32}" -M 8 </dev/null
