#!/usr/bin/env bash
# Installs what the tests need and pip cannot give. On Debian as root it uses apt; elsewhere it names what is missing.
set -euo pipefail

# command, Debian package, what needs it
needs=(
    "jackhmmer hmmer comparison of our searches with HMMER's command line (tests/unit/test_search*.py, bench/search.py)"
    "chromium chromium the report in a real browser (tests/e2e/test_report_page.py)"
    "aria2c aria2 the download through aria2 (tests/unit/test_databases*.py)"
    "shellcheck shellcheck what machines run when they start (tests/infra/test_user_data.py)"
)
# The same, for the tests marked podman. Containers cannot run everywhere: without these, make test leaves those tests out.
needs_of_containers=(
    "podman podman the worker image and jobs in containers"
    "runc runc podman where crun cannot run"
    "mmdebstrap mmdebstrap the base of the worker image, from Debian's packages"
)

# Takes needs; sets missing (command: why) and packages.
look() {
    missing=()
    packages=()
    for need in "$@"; do
        read -r command package why <<<"$need"
        command -v "$command" >/dev/null || { missing+=("$command: $why"); packages+=("$package"); }
    done
}

install() {
    [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null || return 1
    echo "installing $*"
    apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "$@" >/dev/null
}

look "${needs[@]}"
if [ ${#missing[@]} -gt 0 ]; then
    if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; then
        install "${packages[@]}" || exit 1
    else
        echo "These commands are missing; the tests beside them will fail:"
        printf '  %s\n' "${missing[@]}"
        echo "Install them with your package manager (on Debian as root: make system-deps)."
    fi
fi

look "${needs_of_containers[@]}"
if [ ${#missing[@]} -gt 0 ] && ! install "${packages[@]}"; then
    echo "These commands are missing and could not be installed; the tests marked podman will be left out:"
    printf '  %s\n' "${missing[@]}"
fi
