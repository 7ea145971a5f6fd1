#!/bin/bash
# Recorded human speech: the spoken prompts that distributions package for PBXs, as 8 kHz 16-bit mono wav files.
#
#   speech.sh install              fetch them into the cache (once: some seconds)
#   speech.sh path [LANGUAGE]      print the path of at least 12 s of speech; LANGUAGE: en (default), fr, it
#   speech.sh announcement         print the path of 3 s of speech
set -uo pipefail
# shellcheck source=lib.sh
. "$(dirname "$(readlink -f "$0")")/lib.sh"
SOUNDS=$CACHE/sounds OUT=$CACHE/speech
RATE=16000 # bytes a second

install() {
  local suite language
  [ -s "$OUT/announcement.wav" ] && return 0
  has_apt || die "speech cannot be fetched: this machine has no apt"
  for suite in host sid bullseye; do
    unpack "$suite" "$SOUNDS" 'adduser|passwd|libc6|.*-base' asterisk-core-sounds-{en,fr,it}-wav && break
  done
  [ -d "$SOUNDS" ] || die "speech cannot be had on this machine: no package suite has asterisk-core-sounds"
  mkdir -p "$OUT"
  for language in en fr it; do long_prompts "$language" >"$OUT/samples"; wav 14 >"$OUT/$language.wav"; done
  long_prompts en >"$OUT/samples"; wav 3 >"$OUT/announcement.wav"
  rm -f "$OUT/samples"
}

# long_prompts LANGUAGE: the samples of prompts of 2 to 8 s, always in the same order
long_prompts() {
  local file
  find "$SOUNDS"/usr/share/asterisk/sounds/"$1"* -maxdepth 1 -name '*.wav' -size +$((RATE * 2))c -size -$((RATE * 8))c |
    sort | head -n 12 | while read -r file; do tail -c +45 "$file"; done
}

# wav SECONDS: that much of the samples gathered, with a header
wav() {
  local size=$(( $1 * RATE ))
  printf 'RIFF'; little 4 $((36 + size)); printf 'WAVEfmt '
  little 4 16; little 2 1; little 2 1; little 4 8000; little 4 "$RATE"; little 2 2; little 2 16
  printf 'data'; little 4 "$size"
  head -c "$size" "$OUT/samples"
}
little() {
  local left=$1 value=$2
  while [ "$left" -gt 0 ]; do
    # shellcheck disable=SC2059
    printf "\\x$(printf %02x $((value & 255)))"
    value=$((value >> 8)); left=$((left - 1))
  done
}

case ${1:-} in
  install) locked speech install ;;
  path) locked speech install || exit 1; readlink -e "$OUT/${2:-en}.wav" ;;
  announcement) locked speech install || exit 1; readlink -e "$OUT/announcement.wav" ;;
  *) sed -n '2,6s/^# \{0,1\}//p' "$0"; exit 2 ;;
esac
