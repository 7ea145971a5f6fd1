#!/bin/bash
# Asterisk with a PJSIP trunk named `causeway`: the PBX at the other end of the gateway's trunk.
#
#   asterisk.sh install            fetch it into the cache (once: about a minute and 130 MB)
#   asterisk.sh start RUN          write the configuration and start; returns once SIP is answered
#   asterisk.sh run RUN            the same in the foreground, as this very process
#   asterisk.sh cli RUN 'core show channels'
#   asterisk.sh stop RUN
#
# Environment                     default
#   ASTERISK_ADDRESS              127.0.0.10       SIP over UDP and TCP on port 5060 of this address
#   ASTERISK_RTP                  20000-20999      ports for RTP on the same address
#   GATEWAY_ADDRESS               127.0.0.1        requests from here belong to the trunk ...
#   GATEWAY_PORT                  5060             ... and calls to it go here
#   TRUNK_TRANSPORT               udp              what those calls go over: udp, tcp or tls
#   TLS_CERTIFICATE, TLS_KEY, TLS_CA  when set, SIP over TLS on port 5061, verifying the other end
#   TLS_MUTUAL                    no               yes: clients must show a certificate
#   TRUNK_CODECS                  ulaw,alaw
#   TRUNK_USER, TRUNK_PASSWORD    when set, the trunk must authenticate itself (digest)
#   ACCOUNT_USER, ACCOUNT_PASSWORD  when set, an account that may be registered at Asterisk (digest)
#   RELAY_TO                      when set, calls go on to this address and port, and little is logged
#   SPEECH, ANNOUNCEMENT          wav files to play  from speech.sh
#
# What can be dialled is written in asterisk/extensions.conf.
set -uo pipefail
# shellcheck source=lib.sh
. "$(dirname "$(readlink -f "$0")")/lib.sh"
ASTERISK_ADDRESS=${ASTERISK_ADDRESS:-127.0.0.10} ASTERISK_RTP=${ASTERISK_RTP:-20000-20999}
GATEWAY_ADDRESS=${GATEWAY_ADDRESS:-127.0.0.1} GATEWAY_PORT=${GATEWAY_PORT:-5060} TRUNK_CODECS=${TRUNK_CODECS:-ulaw,alaw}
TRUNK_TRANSPORT=${TRUNK_TRANSPORT:-udp}
HOME_DIR=$CACHE/asterisk

# Packages for maintainer scripts, databases, sound cards and conferences that nothing loaded here needs.
LEAVE_OUT='adduser|passwd|base-passwd|debconf|dpkg|login.*|libpam.*|tzdata|perl.*|libperl.*|libgdbm.*|libsnmp.*|libsensors.*'
LEAVE_OUT+='|gnupg.*|gpg.*|dirmngr|pinentry.*|libgpgme.*|libgmime.*|libsemanage.*|asterisk-config|asterisk-doc|libcodec2.*|libjack.*'
LEAVE_OUT+='|libsamplerate.*|libsybdb.*|freetds.*|libpq5|libtiff.*|libjpeg.*|libasound.*|libportaudio.*|pci.ids|libpci3'
LEAVE_OUT+='|libdb5.*|libwebp.*|libc-gconv.*|libradcli.*|unixodbc.*|libodbc.*|asterisk-core-sounds.*|asterisk-moh.*'

binary() {
  # shellcheck disable=SC2206
  AST=("$(loader "$HOME_DIR")" --inhibit-cache --library-path "$(libraries "$HOME_DIR")" "$HOME_DIR/usr/sbin/asterisk")
  for MODULES in "$HOME_DIR"/usr/lib/*/asterisk/modules "$HOME_DIR/usr/lib/asterisk/modules"; do [ -d "$MODULES" ] && break; done
}

runs() { [ -x "$HOME_DIR/usr/sbin/asterisk" ] && binary && "${AST[@]}" -V >/dev/null 2>&1; }

install() {
  local suite
  runs && return 0
  has_apt || die "Asterisk cannot be fetched: this machine has no apt"
  for suite in ${ASTERISK_SUITES:-sid bullseye host}; do
    if unpack "$suite" "$HOME_DIR" "$LEAVE_OUT" asterisk asterisk-modules && runs; then
      say "$("${AST[@]}" -V) ($suite) is in $HOME_DIR"
      return 0
    fi
    say "no working Asterisk from $suite"
  done
  die "Asterisk cannot be had on this machine: none of the package suites tried has one that runs"
}

# Only what is listed is loaded; a module an older Asterisk lacks is left out.
modules() { cat <<'X'
res_timing_timerfd res_crypto res_sorcery_config res_sorcery_memory res_sorcery_astdb res_pjproject res_pjsip
res_pjsip_acl res_pjsip_authenticator_digest res_pjsip_caller_id res_pjsip_diversion res_pjsip_dtmf_info
res_pjsip_endpoint_identifier_ip res_pjsip_endpoint_identifier_user res_pjsip_header_funcs res_pjsip_logger res_pjsip_nat
res_pjsip_outbound_authenticator_digest res_pjsip_outbound_registration res_pjsip_path res_pjsip_refer
res_pjsip_registrar res_pjsip_rfc3326 res_pjsip_sdp_rtp res_pjsip_session res_pjsip_dlg_options res_pjsip_pubsub
chan_pjsip func_pjsip_endpoint func_pjsip_contact func_pjsip_aor res_rtp_asterisk res_srtp
bridge_builtin_features bridge_native_rtp bridge_simple bridge_softmix bridge_holding
codec_ulaw codec_alaw codec_a_mu codec_gsm codec_g722 codec_resample format_wav format_pcm format_sln format_gsm
pbx_config pbx_spool res_clioriginate app_dial app_echo app_playback app_playtones app_milliwatt app_read app_record app_senddtmf
app_stack app_exec app_verbose app_transfer app_mixmonitor app_confbridge
func_channel func_callerid func_logic func_strings func_timeout func_env func_global func_math func_cut func_hangupcause
res_musiconhold res_indications
X
}

# fill FILE: a configuration file with the places marked @NAME@ filled in
fill() {
  sed -e "s#@RUN@#$RUN#g" -e "s#@MODULES@#$MODULES#g" -e "s#@DATA@#$HOME_DIR/usr/share/asterisk#g" \
    -e "s#@ADDRESS@#$ASTERISK_ADDRESS#g" -e "s#@RTP_FIRST@#${ASTERISK_RTP%-*}#g" -e "s#@RTP_LAST@#${ASTERISK_RTP#*-}#g" \
    -e "s#@GATEWAY_ADDRESS@#$GATEWAY_ADDRESS#g" -e "s#@GATEWAY_PORT@#$GATEWAY_PORT#g" -e "s#@CODECS@#$TRUNK_CODECS#g" \
    -e "s#@TRANSPORT@#$TRUNK_TRANSPORT#g" "$1"
}

configure() {
  local etc=$RUN/etc file module
  mkdir -p "$etc" "$RUN"/{db,keys/keys,log,run,recordings} "$RUN"/spool/{outgoing,outgoing_done,tmp}
  for file in "$LAB_DIR"/asterisk/*.conf; do fill "$file" >"$etc/$(basename "$file")"; done
  if [ -n "${TLS_CERTIFICATE:-}" ]; then
    cat >>"$etc/pjsip.conf" <<X
[tls]
type=transport
protocol=tls
bind=$ASTERISK_ADDRESS:5061
cert_file=$TLS_CERTIFICATE
priv_key_file=$TLS_KEY
ca_list_file=$TLS_CA
method=tlsv1_2
verify_server=yes
verify_client=${TLS_MUTUAL:-no}
require_client_cert=${TLS_MUTUAL:-no}
X
  fi
  if [ -n "${TRUNK_USER:-}" ]; then
    printf '[causeway](+)\nauth=causeway\n[causeway]\ntype=auth\nauth_type=userpass\nusername=%s\npassword=%s\n' \
      "$TRUNK_USER" "${TRUNK_PASSWORD:-}" >>"$etc/pjsip.conf"
  fi
  if [ -n "${ACCOUNT_USER:-}" ]; then
    cat >>"$etc/pjsip.conf" <<X
[$ACCOUNT_USER]
type=endpoint
transport=$TRUNK_TRANSPORT
context=lab
disallow=all
allow=$TRUNK_CODECS
direct_media=no
rtp_symmetric=yes
dtmf_mode=rfc4733
auth=$ACCOUNT_USER
aors=$ACCOUNT_USER
[$ACCOUNT_USER]
type=auth
auth_type=userpass
username=$ACCOUNT_USER
password=${ACCOUNT_PASSWORD:-}
[$ACCOUNT_USER]
type=aor
max_contacts=1
remove_existing=yes
X
  fi
  if [ -n "${RELAY_TO:-}" ]; then
    sed -i 's/^context=lab$/context=relay/' "$etc/pjsip.conf"
    cat >>"$etc/pjsip.conf" <<X
[carrier]
type=endpoint
transport=$TRUNK_TRANSPORT
context=relay
disallow=all
allow=$TRUNK_CODECS
aors=carrier
direct_media=no
[carrier]
type=aor
contact=sip:$RELAY_TO
X
    # shellcheck disable=SC2016
    printf '[relay]\nexten => _+X.,1,Dial(PJSIP/${EXTEN}@carrier)\n' >>"$etc/extensions.conf"
    printf '[logfiles]\nmessages => warning,error\n' >"$etc/logger.conf"
    sed -i 's/^verbose = .*/verbose = 0/' "$etc/asterisk.conf"
  fi
  { echo '[modules]'; echo 'autoload=no'
    for module in $(modules); do [ -e "$MODULES/$module.so" ] && echo "load=$module.so"; done; } >"$etc/modules.conf"
  for file in features stasis pjproject sorcery ccss acl cel cdr udptl codecs confbridge dnsmgr manager http; do
    : >"$etc/$file.conf"
  done
  cp "${SPEECH:-$("$LAB_DIR/speech.sh" path)}" "$RUN/speech.wav" || die "no speech to play"
  cp "${ANNOUNCEMENT:-$("$LAB_DIR/speech.sh" announcement)}" "$RUN/announcement.wav" || die "no announcement to play"
}

cli() { "${AST[@]}" -C "$RUN/etc/asterisk.conf" -rx "$1"; }

case ${1:-} in
  install) locked asterisk install; exit ;;
  start|run|stop|cli) [ -n "${2:-}" ] || die "which run folder?"; mkdir -p "$2"; RUN=$(readlink -f "$2") ;;
  *) sed -n '2,25s/^# \{0,1\}//p' "$0"; exit 2 ;;
esac
[ "$1" = stop ] && { end_pid "$RUN/asterisk.pid"; exit 0; }
locked asterisk install || exit 1
binary
case $1 in
  run) configure; echo $$ >"$RUN/asterisk.pid"; exec "${AST[@]}" -C "$RUN/etc/asterisk.conf" -f </dev/null ;;
  start)
    configure
    "${AST[@]}" -C "$RUN/etc/asterisk.conf" -f >"$RUN/stdout" 2>&1 </dev/null & echo $! >"$RUN/asterisk.pid"
    if ! within 20 cli 'core waitfullybooted'; then
      tail -n 5 "$RUN/stdout" "$RUN/log/messages" >&2; end_pid "$RUN/asterisk.pid"; die "Asterisk did not start"
    fi
    say "answers on $ASTERISK_ADDRESS:5060" ;;
  cli) cli "${3:?which command?}" ;;
esac
