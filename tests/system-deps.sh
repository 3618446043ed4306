#!/usr/bin/env bash
# Installs what the tests need and pip cannot give. On Debian as root it uses apt; elsewhere it names what is missing.
set -euo pipefail

# command, Debian package, what needs it
needs=(
    "jackhmmer hmmer comparison of our searches with HMMER's command line (tests/unit/test_search*.py, bench/search.py)"
    "chromium chromium the report in a real browser (tests/e2e/test_report_page.py)"
    "aria2c aria2 the download through aria2 (tests/unit/test_databases*.py)"
)
missing=()
packages=()
for need in "${needs[@]}"; do
    read -r command package why <<<"$need"
    command -v "$command" >/dev/null || { missing+=("$command: $why"); packages+=("$package"); }
done
[ ${#missing[@]} -eq 0 ] && exit 0

if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; then
    echo "installing ${packages[*]}"
    apt-get update -qq
    DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "${packages[@]}" >/dev/null
    exit 0
fi
echo "These commands are missing; the tests beside them will fail:"
printf '  %s\n' "${missing[@]}"
echo "Install them with your package manager (on Debian as root: make system-deps)."
