"""How long the report takes to write and to open, with 3, 100 and 1,000 targets, in headless Chromium.

    python -m bench.report results [--sizes 3 100 1000] [--keep FOLDER]

`results` is the results folder of a finished run; its targets are repeated under other names until there are enough,
each with the predictions of all its engines and their comparison. Times are of one run on this machine, drawn by the
processor where there is no GPU; memory is the proportional set size (PSS) of all of the browser's processes, and the
JavaScript heap of the page after a garbage collection.
"""

import argparse
import json
import os
import shutil
import statistics
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from playwright.sync_api import Browser, CDPSession, Page, sync_playwright

from snakefold.report.report import write_report

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
ARGS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--no-first-run",
    "--disable-background-networking",
    "--use-gl=angle",
    "--use-angle=swiftshader",
    "--enable-unsafe-swiftshader",
)
VISITED = 20  # predictions opened one after the other, for the memory that they leave

# Milliseconds from each input to the end of the layout that it causes.
FILTER = """queries => queries.map(query => {
    const start = performance.now();
    document.getElementById('filter').value = query;
    document.getElementById('filter').dispatchEvent(new Event('input'));
    document.body.getBoundingClientRect();
    return performance.now() - start;
})"""
SORT = """keys => keys.map(key => {
    const start = performance.now();
    document.querySelector(`th[data-key="${key}"] button`).click();
    document.body.getBoundingClientRect();
    return performance.now() - start;
})"""
# Scrolls by 400 pixels a frame to the end of the table; milliseconds of the frames.
SCROLL = """() => new Promise(done => {
    const frames = [];
    let before = performance.now();
    let last = -1;
    const go = now => {
        frames.push(now - before);
        before = now;
        if (scrollY === last) return done(frames.slice(1));
        last = scrollY;
        scrollBy(0, 400);
        requestAnimationFrame(go);
    };
    requestAnimationFrame(go);
})"""


def main() -> None:
    """Measure each size and print a table."""
    parser = argparse.ArgumentParser(description="Measure the report in headless Chromium.")
    parser.add_argument("results", type=Path, help="the results folder of a finished run")
    parser.add_argument("--sizes", type=int, nargs="+", default=[3, 100, 1000])
    parser.add_argument("--keep", type=Path, help="write the reports here and leave them")
    options = parser.parse_args()
    sources = sorted({path.parents[1] for path in options.results.glob("*/*/status.json")})
    if not sources:
        raise SystemExit(f"{options.results}: no prediction in it; run the workflow first")
    chromium = next(filter(None, map(shutil.which, NAMES)), None)
    rows = []
    with tempfile.TemporaryDirectory(prefix="snakefold-report-") as scratch, sync_playwright() as playwright:
        for size in options.sizes:
            results = (options.keep or Path(scratch)) / f"with-{size}"
            made = make_report(sources, results, size)
            # A browser for each size: what one report leaves in memory is not the next one's.
            browser = playwright.chromium.launch(executable_path=chromium, args=list(ARGS))
            rows.append({"targets": size, **made, **measure(browser, results / "report" / "index.html")})
            browser.close()
    width = max(map(len, rows[0]))
    for name in rows[0]:
        print(f"{name:{width}}", *(f"{row[name]:>10}" for row in rows))


def make_report(sources: Sequence[Path], results: Path, size: int) -> dict[str, Any]:
    """Write a results folder with `size` targets and its report; what that took."""
    folders, comparisons = [], []
    for number in range(size):
        source = sources[number % len(sources)]
        target = results / f"{source.name}_{number:04d}"
        for prediction in sorted(path.parent for path in source.glob("*/status.json")):
            folder = target / prediction.name
            folder.mkdir(parents=True)
            for path in prediction.iterdir():
                if path.name in ("status.json", "scores.json"):
                    record = {**json.loads(path.read_text()), "target": target.name}
                    (folder / path.name).write_text(json.dumps(record))
                elif not path.name.startswith("."):
                    (folder / path.name).symlink_to(path.resolve())
            folders.append(folder)
        for path in source.glob("comparison.*.json"):
            comparisons.append(target / path.name)
            comparisons[-1].symlink_to(path.resolve())
    start = time.process_time()
    write_report(
        folders,
        results / "report",
        results=results,
        title=f"{size} targets",
        run={},
        timings=None,
        comparisons=comparisons,
    )
    took = time.process_time() - start
    data = sum(path.stat().st_size for path in (results / "report" / "data").rglob("*.js"))
    single = (results / "report" / "single.html").stat().st_size
    return {"writing, CPU s": f"{took:.1f}", "data, MB": f"{data / 1e6:.1f}", "single.html, MB": f"{single / 1e6:.1f}"}


def measure(browser: Browser, report: Path) -> dict[str, Any]:
    """Open a report as a reader would, and use it."""
    page = browser.new_page(viewport={"width": 1400, "height": 900})
    session = page.context.new_cdp_session(page)
    session.send("Performance.enable")
    page.goto(report.as_uri())
    page.wait_for_selector("body[data-ready]")
    page.wait_for_selector("#viewer[data-drawn]")
    marks = page.evaluate(
        "() => Object.fromEntries(performance.getEntriesByType('mark').map(mark => [mark.name, mark.startTime]))"
    )
    first = memory(session)
    keys = page.locator("#table th").evaluate_all("heads => heads.map(head => head.dataset.key)")
    filtering = page.evaluate(FILTER, ["t", "tr", "try", "", "0", "00", "9", "", "zzz", ""])
    sorting = page.evaluate(SORT, keys)
    page.evaluate(SORT, ["target"])
    page.wait_for_timeout(1000)  # what the sorting left to draw is not scrolling's
    frames = page.evaluate(SCROLL)
    page.evaluate("scrollTo(0, 0)")
    steps = [next_drawn(page) for _ in range(min(VISITED, page.evaluate("snakefold.view.length") - 1))]
    last = memory(session)
    page.close()
    return {
        "table usable, ms": f"{marks['ready']:.0f}",
        "first model drawn, ms": f"{marks['drawn']:.0f}",
        "filter, ms (median)": f"{statistics.median(filtering):.0f}",
        "filter, ms (slowest)": f"{max(filtering):.0f}",
        "sort, ms (slowest)": f"{max(sorting):.0f}",
        "scroll frame, ms (median)": f"{statistics.median(frames):.0f}" if frames else "-",
        "scroll frame, ms (95 %)": f"{sorted(frames)[int(0.95 * len(frames))]:.0f}" if frames else "-",
        "scroll frame, ms (slowest)": f"{max(frames):.0f}" if frames else "-",
        "next model drawn, ms (median)": f"{statistics.median(steps):.0f}" if steps else "-",
        "JS heap at first, MB": f"{first[0] / 1e6:.0f}",
        "JS heap in the end, MB": f"{last[0] / 1e6:.0f}",
        "browser at first, MB (PSS)": f"{first[1] / 1e6:.0f}",
        "browser in the end, MB (PSS)": f"{last[1] / 1e6:.0f}",
    }


def next_drawn(page: Page) -> float:
    """Milliseconds from the key for the next prediction to its panel, with its model where there is one."""
    start = time.perf_counter()
    before = page.evaluate("snakefold.keyOf(snakefold.selected)")
    page.evaluate("() => snakefold.step(1)")
    page.wait_for_function("before => snakefold.keyOf(snakefold.selected) !== before", arg=before)
    page.wait_for_selector("#viewer[data-drawn], .banner")
    return 1000 * (time.perf_counter() - start)


def memory(session: CDPSession) -> tuple[float, float]:
    """Bytes of the JavaScript heap after a garbage collection, and of all processes of the browser."""
    session.send("HeapProfiler.collectGarbage")
    metrics = {each["name"]: each["value"] for each in session.send("Performance.getMetrics")["metrics"]}
    return metrics["JSHeapUsedSize"], sum(map(proportional_size, browser_processes()))


def browser_processes() -> Iterator[int]:
    """The processes below this one that are the browser's (Linux)."""
    parents: dict[int, int] = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                parents[int(entry.name)] = int((entry / "stat").read_text().rpartition(")")[2].split()[1])
            except OSError:  # it ended meanwhile
                continue
    for process in parents:
        above = process
        while above in parents and above != os.getpid():
            above = parents[above]
        if above == os.getpid() and process != above:
            try:
                command = Path(f"/proc/{process}/cmdline").read_bytes()
            except OSError:
                continue
            if b"chrom" in command.split(b"\0")[0]:
                yield process


def proportional_size(process: int) -> int:
    """PSS of a process in bytes; 0 if it is gone."""
    try:
        lines = Path(f"/proc/{process}/smaps_rollup").read_text().splitlines()
    except OSError:
        return 0
    return next((1024 * int(line.split()[1]) for line in lines if line.startswith("Pss:")), 0)


if __name__ == "__main__":
    main()
