#!/bin/bash
# SIPp, a generator of SIP calls, from this machine's release.
#
#   sipp.sh install
#   sipp.sh run ARGUMENTS...       run it as this very process; scenarios are in sipp/
set -uo pipefail
# shellcheck source=lib.sh
. "$(dirname "$(readlink -f "$0")")/lib.sh"
case ${1:-} in
  install) locked sipp need sipp sip-tester ;;
  run) shift; locked sipp need sipp sip-tester || exit 1; exec sipp "$@" ;;
  *) sed -n '2,5s/^# \{0,1\}//p' "$0"; exit 2 ;;
esac
