# shellcheck shell=bash
# Sourced by the other scripts of the laboratory.
#
# Software that is not packaged for this machine's release is unpacked, with all it depends on, into a
# cache folder and run from there by its own C library: no chroot, no root, nothing outside the cache.
# Packages come from wherever this machine's own package manager is set to fetch them.
# shellcheck disable=SC2034  # used by those who source this
LAB_DIR=$(dirname "$(readlink -f "${BASH_SOURCE[0]}")")
CACHE=${CAUSEWAY_LAB_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/causeway-lab}
export DEBIAN_FRONTEND=noninteractive LC_ALL=C.UTF-8

say() { printf '[%s] %s\n' "$(basename "$0" .sh)" "$*" >&2; }
die() { say "$*"; exit 1; }

as_root() {
  if [ "$(id -u)" = 0 ]; then "$@"
  elif command -v sudo >/dev/null; then sudo "$@"
  else die "need root for: $* (no sudo here)"; fi
}

# has_apt: whether this machine installs packages with apt
has_apt() { command -v apt-get >/dev/null && command -v dpkg-deb >/dev/null; }

# fresh_lists: fetch the package lists unless they are less than a day old
fresh_lists() {
  [ -n "$(find /var/lib/apt/lists -maxdepth 1 -name '*_Packages*' -mmin -1440 -print -quit 2>/dev/null)" ] ||
    as_root apt-get -qq update
}

# need COMMAND PACKAGE...: install packages of this release unless COMMAND is there
need() {
  local command=$1; shift
  command -v "$command" >/dev/null && return 0
  has_apt || die "$command is missing; install it ($*) and try again"
  say "installing $*"
  fresh_lists
  as_root apt-get -qq install -y --no-install-recommends "$@" >/dev/null || die "apt-get install $* failed"
}

# locked NAME COMMAND...: run COMMAND while no other process runs one under the same NAME
locked() {
  local name=$1; shift
  mkdir -p "$CACHE"
  ( flock 9 || exit 1; "$@" ) 9>"$CACHE/.$name.lock"
}

# apt_at SUITE COMMAND...: run an apt command against SUITE with its own lists and an empty package database.
# SUITE `host` means the releases this machine is set to use; any other name a suite of the same Debian mirror.
apt_at() {
  local suite=$1 state; shift
  state=$CACHE/apt/$suite
  mkdir -p "$state"/{lists,archives}/partial "$state/none"
  [ -e "$state/status" ] || : >"$state/status"
  {
    echo "Dir::State \"$state\"; Dir::State::lists \"$state/lists\"; Dir::State::status \"$state/status\";"
    echo "Dir::Cache \"$state\"; Dir::Cache::archives \"$state/archives\";"
    echo "Dir::Etc::preferences \"$state/none/none\"; Dir::Etc::preferencesparts \"$state/none\";"
    if [ "$suite" != host ]; then
      echo "Dir::Etc::sourcelist \"$state/sources.list\"; Dir::Etc::sourceparts \"$state/none\";"
    fi
    # Signatures are checked with the keyring of this machine; the user running this may read only its own files.
    echo 'Acquire::Languages "none"; APT::Install-Recommends "false"; APT::Sandbox::User "root"; Debug::NoLocking "true";'
  } >"$state/apt.conf"
  APT_CONFIG=$state/apt.conf "$@"
}

# debian_mirror: the mirror of Debian's main archive that apt reports for this machine
debian_mirror() {
  # shellcheck disable=SC2016
  apt-get indextargets --format '$(ORIGIN)|$(RELEASE)|$(SITE)' 'Created-By: Packages' |
    awk -F'|' '$1 == "Debian" && $2 !~ /security|updates|backports/ { print $3; exit }'
}

# unpack SUITE FOLDER LEAVE_OUT PACKAGE...: fetch packages with everything they depend on (the C library too)
# and unpack them under FOLDER without running their scripts. LEAVE_OUT: names not wanted, a regular expression.
# Fails without touching FOLDER when SUITE cannot be reached or does not have them.
unpack() {
  local suite=$1 folder=$2 leave_out=$3 state mirror deb; shift 3
  state=$CACHE/apt/$suite
  mkdir -p "$state"
  if [ "$suite" != host ]; then
    mirror=$(debian_mirror)
    [ -n "$mirror" ] || { say "no Debian mirror in apt's configuration"; return 1; }
    echo "deb [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] $mirror $suite main" >"$state/sources.list"
  fi
  say "fetching $1 and what it needs ($suite)"
  apt_at "$suite" apt-get -qq update >/dev/null 2>"$state/error" || { tail -n 2 "$state/error" >&2; return 1; }
  apt_at "$suite" apt-get install -y --print-uris "$@" 2>"$state/error" |
    sed -n "s/^'[^']*' \([^_]*\)_.*/\1/p" | grep -vxE "${leave_out:-none}" >"$state/wanted"
  [ -s "$state/wanted" ] || { tail -n 2 "$state/error" >&2; return 1; }
  rm -f "$state"/archives/*.deb
  ( cd "$state/archives" && xargs -r env APT_CONFIG="$state/apt.conf" apt-get -qq download <"$state/wanted" ) >/dev/null 2>"$state/error" ||
    { tail -n 2 "$state/error" >&2; return 1; }
  rm -rf "$folder.part"; mkdir -p "$folder.part"
  for deb in "$state"/archives/*.deb; do
    dpkg-deb --fsys-tarfile "$deb" |
      tar -x -C "$folder.part" --no-same-owner --keep-directory-symlink \
        --exclude=./usr/share/doc --exclude=./usr/share/man --exclude=./usr/share/locale || return 1
    # shellcheck disable=SC2016
    dpkg-deb -W --showformat '${Package} ${Version}\n' "$deb" >>"$folder.part/PACKAGES"
  done
  rm -rf "$state"/archives/*.deb "$folder"
  mv "$folder.part" "$folder"
}

# loader FOLDER: the dynamic loader among unpacked packages; libraries FOLDER: where its libraries are
loader() {
  local each
  for each in "$1"/usr/lib/*/ld-linux-*.so.? "$1"/lib/*/ld-linux-*.so.? "$1"/lib/*/ld-2.*.so; do
    [ -e "$each" ] && { echo "$each"; return 0; }
  done
  return 1
}
libraries() {
  local each out=
  for each in "$1"/usr/lib/*-linux-gnu "$1"/lib/*-linux-gnu "$1"/usr/lib "$1"/usr/lib/asterisk; do
    [ -d "$each" ] && out+=${out:+:}$each
  done
  echo "$out"
}

# within SECONDS COMMAND...: try COMMAND every 50 ms until it succeeds
within() {
  local left=$(( $1 * 20 )); shift
  while [ "$left" -gt 0 ]; do
    "$@" >/dev/null 2>&1 && return 0
    sleep 0.05; left=$((left - 1))
  done
  return 1
}

# end_pid FILE: end the process whose id FILE holds: TERM, and KILL after 5 s
end_pid() {
  local pid
  [ -s "$1" ] || return 0
  pid=$(cat "$1")
  kill "$pid" 2>/dev/null
  # shellcheck disable=SC2016
  within 5 bash -c '! kill -0 "$1"' _ "$pid" || kill -9 "$pid" 2>/dev/null
  rm -f "$1"
}
