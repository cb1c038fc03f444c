#!/bin/sh
# Installs the Debian packages named on the command line that are missing. Without root it
# only says what is missing: a machine that has them already needs none.
set -eu
missing=""
for package in "$@"; do
  case "$(dpkg-query -W -f '${db:Status-Status}' "$package" 2>/dev/null || true)" in
    installed) ;;
    *) missing="$missing $package" ;;
  esac
done
[ -n "$missing" ] || exit 0
if ! command -v apt-get >/dev/null; then
  echo "this is no Debian system: please provide the equivalents of$missing" >&2
  exit 0
fi
if [ "$(id -u)" != 0 ]; then
  echo "missing packages; as root: apt-get install$missing" >&2
  exit 1
fi
echo "installing Debian packages:$missing"
export DEBIAN_FRONTEND=noninteractive
# Programs are wanted, not services: redis-server, bird2, frr and their like start none.
if [ ! -e /usr/sbin/policy-rc.d ]; then
  trap 'rm -f /usr/sbin/policy-rc.d' EXIT
  printf '#!/bin/sh\nexit 101\n' >/usr/sbin/policy-rc.d
  chmod 0755 /usr/sbin/policy-rc.d
fi
apt-get -qq update
# shellcheck disable=SC2086
apt-get -qq install -y --no-install-recommends $missing >/dev/null
