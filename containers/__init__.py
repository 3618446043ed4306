"""Images of jobs, and how they are built. `python -m containers.build --help` tells the commands."""
