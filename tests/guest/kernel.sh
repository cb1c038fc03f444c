#!/bin/sh
# The kernel for the guest of tests/lab/test_migration_lab.py, unpacked into the directory named on the command
# line and installed nowhere: Debian's own package, by apt-get download. Nothing is done where it is there.
set -eu
into=$1
[ -z "$(ls "$into"/boot/vmlinuz-* 2>/dev/null)" ] || exit 0
command -v apt-cache >/dev/null || { echo "no kernel for the migration lab: this is no Debian system" >&2; exit 0; }
case "$(dpkg --print-architecture)" in
  amd64) meta=linux-image-cloud-amd64 ;;
  *) echo "no kernel for the migration lab: it has a guest for amd64 alone" >&2; exit 0 ;;
esac
package=$(apt-cache depends "$meta" 2>/dev/null | sed -n 's/^ *Depends: \(linux-image-[^ ]*\)$/\1/p' | head -n 1)
[ -n "$package" ] || { echo "no kernel for the migration lab: $meta is not known to apt" >&2; exit 0; }
mkdir -p "$into/deb"
chmod 0755 "$into" "$into/deb"
echo "fetching a kernel for the migration lab: $package"
if ! (cd "$into/deb" && apt-get -qq -o APT::Sandbox::User=root download "$package"); then
  echo "no kernel for the migration lab: apt does not fetch $package" >&2
  exit 0
fi
dpkg-deb -x "$into"/deb/"$package"_*.deb "$into"
rm -r "$into/deb"
