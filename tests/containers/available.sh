#!/usr/bin/env bash
# Whether the tests marked `podman` can run here. If not, says why and which tests are left out.
set -euo pipefail
cd "$(dirname "$0")/../.."
if ! command -v mmdebstrap >/dev/null; then
    reason="mmdebstrap: not found; the image's base is made with it"
elif reason=$(.venv/bin/python -m containers.engine 2>&1); then
    exit 0
fi
echo "Containers cannot run here: $reason"
echo "The tests marked 'podman' in these files are left out (on Debian as root, 'make system-deps' installs what they need):"
grep --recursive --files-with-matches --include='test_*.py' 'pytest\.mark\.podman' tests | sort | sed 's/^/  /'
exit 1
