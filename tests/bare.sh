#!/usr/bin/env bash
# Proves the README's claim about a bare machine: makes a minimal Debian 12 in a directory, gives it nothing but the Rust
# toolchain that runs here, the committed tree and this machine's way to the registries, and runs the README's first
# command and .ci/run in it. Everything is downloaded first; both commands then run in a network of their own, so that
# servers that run outside are neither used nor disturbed, and no test can reach further than loopback.
#
# usage, as root, in the repository: bare.sh [SUITE]     TMPDIR: where the root is made (15 GB); KEEP=1 keeps it
set -euo pipefail

suite=${1:-bookworm}
cd "$(git rev-parse --show-toplevel)"
((EUID == 0)) || { echo "bare: a root is made and entered, so run this as root" >&2; exit 1; }
for program in debootstrap unshare chroot ip git rustc; do
  command -v "$program" >/dev/null || { echo "bare: $program is missing" >&2; exit 1; }
done
sysroot=$(rustc --print sysroot)
[[ -x $sysroot/bin/cargo ]] || { echo "bare: $sysroot has no cargo" >&2; exit 1; }

# The first mirror of this suite in either form of apt's lists.
lists=(/etc/apt/sources.list /etc/apt/sources.list.d/*.list /etc/apt/sources.list.d/*.sources)
mirror=$(cat /dev/null $(for list in "${lists[@]}"; do [[ ! -e $list ]] || echo "$list"; done) | awk -v suite="$suite" '
  function entry() { if ((" " suites " ") ~ (" " suite " ") && uri) print uri; uri = suites = "" }
  /^deb / { entry(); sub(/\[[^]]*\] */, ""); uri = $2; suites = $3; entry(); next }
  /^Types:/ || /^[ \t]*$/ { entry() }
  /^URIs:/ { uri = $2 }
  /^Suites:/ { $1 = ""; suites = $0 }
  END { entry() }' | sed -n 1p)
mirror=${mirror:-http://deb.debian.org/debian}

root=$(mktemp -d "${TMPDIR:-/var/tmp}/bare.XXXXXX")
chmod 755 "$root" # apt downloads as a user of its own
# Mounts live in namespaces of their own and are gone by now; should one be left, it is another file system.
[[ ${KEEP:-} ]] || trap 'rm -rf --one-file-system "$root"' EXIT

# What this machine says about proxies, certificates and registries, and nothing else of its environment.
names='(https?|all|no)_proxy|SSL_CERT_(FILE|DIR)|.*_CA_BUNDLE|NODE_EXTRA_CA_CERTS'
names+='|PIP_(CERT|INDEX_URL|EXTRA_INDEX_URL|TRUSTED_HOST|DEFAULT_TIMEOUT)|NPM_CONFIG_.*|CARGO_(HTTP|NET|REGISTR|SOURCE).*'
passed=()
while IFS= read -r -d '' variable; do
  if grep -qixE "$names" <<<"${variable%%=*}"; then passed+=("$variable"); fi
done < <(env -0)

inside() { # host|own COMMAND: in the root, on this machine's network or on one of its own that has only loopback
  local network=()
  [[ $1 == host ]] || network=(--net)
  unshare --mount --pid --fork --kill-child "${network[@]}" bash -euc '
    root=$1 sysroot=$2 network=$3 command=$4; shift 4
    mount -t proc proc "$root/proc"
    mount --rbind /dev "$root/dev"
    mount --rbind /sys "$root/sys"
    mount --bind "$sysroot" "$root/opt/rust"
    mount -o remount,bind,ro "$root/opt/rust"
    [[ $network == host ]] || ip link set lo up
    exec chroot "$root" /usr/bin/env -i HOME=/root CI=true TERM=dumb "$@" \
      PATH=/opt/rust/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin bash -euc "cd /src; $command"
  ' bash "$root" "$sysroot" "$1" "$2" "${passed[@]}" </dev/null
}

took=()
timed() { # WHAT COMMAND...
  local began=$SECONDS what=$1
  echo "bare: $what" >&2
  "${@:2}" || { echo "bare: FAILED after $((SECONDS - began)) s: $what" >&2; exit 1; }
  took+=("$(printf '%5d s  %s' $((SECONDS - began)) "$what")")
}

make_root() {
  debootstrap --variant=minbase "$suite" "$root" "$mirror" >"$root.log" 2>&1 || { tail "$root.log" >&2; return 1; }
  rm "$root.log"
  mkdir -p "$root"/{opt/rust,etc/ssl/certs,root/.cargo,root/.config/pip,usr/local/share}
  git clone -q --no-hardlinks "$PWD" "$root/src"
  cp -L /etc/resolv.conf /etc/hosts "$root/etc/"
  apt-config dump | grep -iE '^Acquire::(.*proxy|check-)' >"$root/etc/apt/apt.conf.d/99outside" || true
  # Certificates that this machine trusts, also after the root installs Debian's.
  [[ ! -d /usr/local/share/ca-certificates ]] || cp -rL /usr/local/share/ca-certificates "$root/usr/local/share/"
  [[ ! -e /etc/ssl/certs/ca-certificates.crt ]] || cp -L /etc/ssl/certs/ca-certificates.crt "$root/etc/ssl/certs/"
  [[ ! -e /etc/pip.conf ]] || cp -L /etc/pip.conf "$root/etc/"
  cat ~/.pip/pip.conf ~/.config/pip/pip.conf >"$root/root/.config/pip/pip.conf" 2>/dev/null || true
  cat /etc/npmrc /usr/etc/npmrc /usr/local/etc/npmrc ~/.npmrc 2>/dev/null | sort -u >"$root/root/.npmrc" || true
  local cargo=${CARGO_HOME:-$HOME/.cargo}/config.toml
  [[ ! -e $cargo ]] || cp -L "$cargo" "$root/root/.cargo/"
}

serve='
  cargo run --release -- serve >/tmp/serve.log 2>&1 &
  pid=$!
  ask() { { exec 3<>/dev/tcp/127.0.0.1/8790; } 2>/dev/null && printf "GET /readyz HTTP/1.0\r\n\r\n" >&3 && head -n 1 <&3; }
  until answer=$(ask) && [[ $answer == *" 200"* ]]; do
    kill -0 $pid 2>/dev/null || { cat /tmp/serve.log; exit 1; }
    ((SECONDS < 3600)) || { cat /tmp/serve.log; exit 1; }
    sleep 1
  done
  tail -n 12 /tmp/serve.log
  [[ -s whimbrel.toml ]]
  kill $pid
  wait $pid'

timed "debootstrap $suite" make_root
# The README asks for a C compiler; .ci/run installs the rest of what it asks for.
timed "a C compiler, and the crates" inside host '
  apt-get update -qq && apt-get install -qqy --no-install-recommends gcc libc6-dev >/dev/null && cargo fetch --quiet --locked'
timed "command 1: cargo run --release -- serve, ready and stopped" inside own "$serve"
# Servers that already answer on this machine are left alone; what is started here ends with its namespace.
timed "what .ci/run installs" inside host '
  bash <(sed "/^exec cargo x/,\$d" .ci/run) && cargo x servers && cargo x deny'
timed "command 2: .ci/run" inside own .ci/run

printf '%s\n' "${took[@]}"
echo "bare: $suite with $("$sysroot/bin/rustc" --version) passes at $(git rev-parse --short HEAD)"
