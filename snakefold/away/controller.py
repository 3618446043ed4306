"""What the controller's job does once the sources are unpacked: `python -m snakefold.away.controller ARGUMENTS`.

Snakemake asks git which files to send to its jobs, so the working directory becomes a repository that tracks the same
files as the one it came from. Then Snakemake takes this process's place, and AWS Batch's SIGTERM reaches it.
"""

import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from snakefold.away.pack import tracked_files


def make_repository(root: Path) -> None:
    """Let git track in `root` what it tracked where the sources came from; nothing is committed."""
    git = ["git", "-C", str(root)]
    subprocess.run([*git, "init", "--quiet"], check=True)
    names = "".join(f"{name}\0" for name in tracked_files(root))
    # -f: a file may be tracked though .gitignore names it. Names are no patterns.
    subprocess.run(
        [*git, "--literal-pathspecs", "add", "-f", "--pathspec-from-file=-", "--pathspec-file-nul"],
        check=True,
        input=names,
        text=True,
    )


def main(arguments: Sequence[str]) -> None:
    """Become Snakemake with these arguments, in the working directory."""
    make_repository(Path())
    command = [sys.executable, "-m", "snakemake", "--profile", "profiles/aws-batch", *arguments]
    os.execv(sys.executable, command)


if __name__ == "__main__":
    main(sys.argv[1:])
