#!/bin/bash
# baresip, a SIP softphone, unattended: it plays a wav file, records what it hears, and is told what to do over TCP.
#
#   baresip.sh install             install it from this machine's release
#   baresip.sh run RUN             write the configuration and run as this very process
#
# Environment                     default
#   PHONE_ADDRESS                 127.0.0.20       SIP on PHONE_PORT of this address
#   PHONE_PORT                    5060
#   PHONE_CONTROL                 4444             port of the control socket, same address
#   PHONE_RTP                     40000-40999
#   PHONE_USER                    phone
#   PHONE_PEER                    127.0.0.1:5060   its outbound proxy
#   PHONE_PASSWORD                                 when set, it registers there as PHONE_USER
#   PHONE_CODEC                   pcma             pcmu, pcma or opus
#   PHONE_ANSWER                  auto             auto or manual
#   PHONE_WAV                     from speech.sh   8 kHz, mono
#
# What it heard is in RUN/dump-*-dec.wav, what it said in RUN/dump-*-enc.wav.
set -uo pipefail
# shellcheck source=lib.sh
. "$(dirname "$(readlink -f "$0")")/lib.sh"
A=${PHONE_ADDRESS:-127.0.0.20} P=${PHONE_PORT:-5060}

case ${1:-} in
  install) locked baresip need baresip baresip-core; exit ;;
  run) [ -n "${2:-}" ] || die "which run folder?"; mkdir -p "$2"; RUN=$(readlink -f "$2") ;;
  *) sed -n '2,19s/^# \{0,1\}//p' "$0"; exit 2 ;;
esac
locked baresip need baresip baresip-core || exit 1
for MODULES in /usr/lib/baresip/modules /usr/lib/*/baresip/modules; do [ -d "$MODULES" ] && break; done
WAV=${PHONE_WAV:-$("$LAB_DIR/speech.sh" path)} || die "no speech to play"
cat >"$RUN/config" <<X
poll_method epoll
sip_listen $A:$P
call_local_timeout 120
call_max_calls 16
audio_source aufile,$WAV
audio_player aubridge,nil
audio_alert aubridge,nil
ausrc_srate 8000
auplay_srate 8000
ausrc_channels 1
auplay_channels 1
audio_path $RUN
audio_buffer 20-160
audio_level no
rtp_ports ${PHONE_RTP:-40000-40999}
rtcp_mux no
jitter_buffer_delay 5-10
net_interface $A
snd_path $RUN
ctrl_tcp_listen $A:${PHONE_CONTROL:-4444}
module_path $MODULES
module uuid.so
module g711.so
module opus.so
module aufile.so
module aubridge.so
module sndfile.so
module_app account.so
module_app menu.so
module_app ctrl_tcp.so
X
PEER=${PHONE_PEER:-127.0.0.1:5060} DOMAIN=$A:$P REGISTER='regint=0'
if [ -n "${PHONE_PASSWORD:-}" ]; then DOMAIN=$PEER REGISTER="regint=60;auth_user=${PHONE_USER:-phone};auth_pass=$PHONE_PASSWORD"; fi
printf '<sip:%s@%s>;%s;outbound="sip:%s";answermode=%s;audio_codecs=%s;dtmfmode=rtp\n' \
  "${PHONE_USER:-phone}" "$DOMAIN" "$REGISTER" "$PEER" "${PHONE_ANSWER:-auto}" "${PHONE_CODEC:-pcma}" >"$RUN/accounts"
: >"$RUN/contacts"
echo $$ >"$RUN/baresip.pid"
cd "$RUN" && exec baresip -f "$RUN" </dev/null
