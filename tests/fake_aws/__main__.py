"""`python -m tests.fake_aws`: the fake AWS as a process of its own, until it is interrupted or its parent goes."""

from __future__ import annotations

import argparse
import json
import os
import signal
import sys
import threading
from pathlib import Path

from tests.fake_aws.settings import Settings


def main() -> None:
    """Serves; prints one line of JSON with the port and the endpoint once it does."""
    parser = argparse.ArgumentParser(prog="python -m tests.fake_aws", description=__doc__)
    parser.add_argument("--port", type=int, default=0, help="0: a free one (default)")
    parser.add_argument("--engine", choices=["process", "podman", "null"], default=None)
    parser.add_argument("--slots", type=int, help="attempts that may run at once on this machine")
    parser.add_argument("--settings", default="{}", help="all settings, as JSON or as the name of a JSON file")
    parser.add_argument("--set-up", metavar="FLEET", help="make bucket, roles and queues; write the fleet file here")
    parser.add_argument("--until-stdin-closes", action="store_true", help="end when standard input ends")
    arguments = parser.parse_args()
    text = arguments.settings if arguments.settings.lstrip().startswith("{") else Path(arguments.settings).read_text()
    given = {name: getattr(arguments, name) for name in ("engine", "slots") if getattr(arguments, name) is not None}
    settings = Settings.model_validate({**json.loads(text), **given})

    # moto takes seconds to import: after the arguments are known to be right.
    from tests.fake_aws.server import FakeServer

    server = FakeServer(settings, arguments.port)

    def end(*_: object) -> None:
        server.scheduler.close()
        os._exit(0)

    def end_with_parent() -> None:
        sys.stdin.buffer.read()
        end()

    signal.signal(signal.SIGTERM, end)
    signal.signal(signal.SIGINT, end)
    if arguments.until_stdin_closes:
        threading.Thread(target=end_with_parent, name="parent", daemon=True).start()
    threading.Thread(target=server.account.preload, name="preload", daemon=True).start()
    threading.Thread(target=server.serve, name="server", daemon=True).start()
    if arguments.set_up:
        from tests.fake_aws.resources import Clients, set_up

        Path(arguments.set_up).write_text(json.dumps(set_up(Clients(server.endpoint)), indent=2) + "\n")
    print(json.dumps({"port": server.port, "endpoint": server.endpoint}), flush=True)
    while True:
        signal.pause()


if __name__ == "__main__":
    main()
