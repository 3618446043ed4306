# pyright: reportMissingImports=false
"""A driver that does to itself what the sequences say: the supervisor's tests send it.

Parameters: `do` maps a member to what it does ("kill", "segfault", "exit", "hang", "freeze", "error", "refuse",
"slow", "hungry", "eased", "crowded"); `once` holds members that do it a single time; `load` says what happens while
loading; `group` is how many members go through at once; `marks` is a folder for notes.
"""

import ctypes
import json
import os
import signal
import sys
import time
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[3] / "snakefold" / "engines" / "drivers"))

from driver_protocol import Driver, RefusedError, Task, serve


class Obedient(Driver):
    eases = 2

    def load(self, settings: dict[str, Any]) -> None:
        self.settings = settings
        print("loading, to standard output", flush=True)
        if settings.get("load") == "die":
            print("no such weights", file=sys.stderr, flush=True)
            os._exit(3)

    def groups(self, tasks: list[Task]) -> list[list[Task]]:
        size = self.settings.get("group", 1)
        return [tasks[start : start + size] for start in range(0, len(tasks), size)]

    def predict(self, tasks: list[Task], ease: int) -> None:
        for task in tasks:
            print(f"working on {task['id']}", flush=True)
            (Path(task["folder"]) / "half.txt").write_text("half")
            what = self.settings["do"].get(task["id"])
            mark = Path(self.settings["marks"]) / task["id"]
            if what and not (task["id"] in self.settings.get("once", []) and mark.exists()):
                mark.touch()
                self.suffer(what, ease, alone=len(tasks) == 1)
            (Path(task["folder"]) / "half.txt").unlink()
            how = {
                "pid": os.getpid(),
                "ease": ease,
                "together": len(tasks),
                "gpu": os.environ.get("CUDA_VISIBLE_DEVICES"),
            }
            (Path(task["folder"]) / "result.json").write_text(json.dumps(how))

    def suffer(self, what: str, ease: int, *, alone: bool) -> None:
        if what == "kill":
            os.kill(os.getpid(), signal.SIGKILL)
        elif what == "segfault":
            ctypes.string_at(0)
        elif what == "exit":
            os._exit(7)
        elif what == "hang":
            time.sleep(3600)
        elif what == "freeze":
            os.kill(os.getpid(), signal.SIGSTOP)
        elif what == "error":
            raise ValueError("this is no protein\nmore about it")
        elif what == "refuse":
            raise RefusedError("not_accepted", "too odd")
        elif what == "slow":
            time.sleep(2)
        elif what == "hungry":
            raise MemoryError("never enough")
        elif what == "eased" and ease < 2:
            raise MemoryError("not enough yet")
        elif what == "crowded" and not alone:
            raise MemoryError("too many at once")


if __name__ == "__main__":
    serve(Obedient())
