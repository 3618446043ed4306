"""The report as a reader meets it: opened from disk in a real browser, and the files it is made of."""

import hashlib
import io
import itertools
import json
import math
import shutil
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import numpy as np
import pytest
from PIL import Image
from playwright.sync_api import Browser, Page, sync_playwright

from snakefold.comparison import compare_engines
from snakefold.engines import ENGINES
from snakefold.errors import SnakefoldError
from snakefold.report.report import write_report
from snakefold.structures.io import ModelChain
from snakefold.structures.io import write_model as write_structure
from tests.conftest import Clone

CHROMIUM_NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
CHROMIUM_ARGS = [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--use-gl=angle",
    "--use-angle=swiftshader",
    "--enable-unsafe-swiftshader",
]
SEQUENCE = "MKTAYIAKQRQISFVKSHFSRQLEERLGLIEV"
NAMES = "A ALA E GLU F PHE G GLY H HIS I ILE K LYS L LEU M MET Q GLN R ARG S SER T THR V VAL Y TYR"
THREE = dict(zip(NAMES.split()[::2], NAMES.split()[1::2], strict=True))
HOSTILE = "<script>window.hacked = true</script><img src=x onerror='window.hacked = true'>"
TIMINGS = {"steps": {"fold": 12.5}, "predictions": {"helix/template": 7.25}}
COMPARISON = "comparison.template-esmfold.json"
RUN = {
    "software": {"snakefold": "0.1.0", "openmm": "8.4"},
    "databases": [{"name": "mini_pdb", "version": "1", "licence": "CC0-1.0", "digest": "ab" * 32}],
    "config_digest": "cd" * 32,
}


# ---------------------------------------------------------------- the folders that `score` would have left


def place(a: np.ndarray, b: np.ndarray, c: np.ndarray, length: float, angle: float, torsion: float) -> np.ndarray:
    """The atom x at `length` from c, with the angle b-c-x and the torsion a-b-c-x in degrees."""
    angle, torsion = math.radians(angle), math.radians(torsion)
    axis = (c - b) / np.linalg.norm(c - b)
    normal = np.cross(b - a, axis)
    normal /= np.linalg.norm(normal)
    frame = np.stack([axis, np.cross(normal, axis), normal], axis=1)
    return c + frame @ (
        length * np.array([-math.cos(angle), math.sin(angle) * math.cos(torsion), math.sin(angle) * math.sin(torsion)])
    )


def helix(count: int) -> list[dict[str, np.ndarray]]:
    """Backbone and CB of an ideal alpha helix (phi -57, psi -47)."""
    n, ca = np.zeros(3), np.array([1.46, 0.0, 0.0])
    c = np.array([2.0, 1.42, 0.0])
    residues = []
    for _ in range(count):
        following = place(n, ca, c, 1.33, 117.0, -47.0)
        next_ca = place(ca, c, following, 1.46, 121.0, 180.0)
        residues.append(
            {
                "N": n,
                "CA": ca,
                "C": c,
                "O": place(n, ca, c, 1.23, 121.0, 133.0),
                "CB": place(c, n, ca, 1.53, 110.0, -122.0),
            }
        )
        n, ca, c = following, next_ca, place(c, following, next_ca, 1.52, 111.0, -57.0)
    return residues


def write_model(path: Path, chains: str, absent: Sequence[int], shift: float = 0.0) -> None:
    """An mmCIF file: one helix per chain, 12 A apart; the B-factor of residue i (1-based) is 30 + 2 i."""
    tags = [
        *("group_PDB", "id", "type_symbol", "label_atom_id", "label_alt_id", "label_comp_id", "label_asym_id"),
        *("label_entity_id", "label_seq_id", "Cartn_x", "Cartn_y", "Cartn_z", "occupancy", "B_iso_or_equiv"),
        *("auth_seq_id", "auth_asym_id", "pdbx_PDB_model_num"),
    ]
    lines = ["data_model", "_entry.id model", "#", "loop_", *(f"_atom_site.{tag}" for tag in tags)]
    for index, chain in enumerate(chains):
        for number, atoms in enumerate(helix(len(SEQUENCE)), start=1):
            if number in absent:
                continue
            for name, position in atoms.items():
                x, y, z = position + np.array([0.0, 12.0 * index + shift, 0.0])
                lines.append(
                    f"ATOM {len(lines)} {name[0]} {name} . {THREE[SEQUENCE[number - 1]]} {chain} 1 {number} "
                    f"{x:.3f} {y:.3f} {z:.3f} 1.0 {30 + 2 * number:.2f} {number} {chain} 1"
                )
    path.write_text("\n".join([*lines, "#", ""]))


@dataclass
class Run:
    """The results folder of a made-up run."""

    results: Path
    folders: list[Path] = field(default_factory=list)

    @property
    def report(self) -> Path:
        return self.results / "report"

    def status(self, target: str, engine: str, status: str, **more: Any) -> Path:
        folder = self.results / target / engine
        folder.mkdir(parents=True)
        record = {"target": target, "engine": engine, "status": status, "step": "score", "kind": None, "reason": None}
        (folder / "status.json").write_text(json.dumps({**record, "log": [], **more}))
        self.folders.append(folder)
        return folder

    def done(
        self,
        target: str,
        engine: str,
        mean: float,
        *,
        chains: str = "A",
        kind: str = "estimated lDDT",
        ref: bool = False,
    ) -> Path:
        folder = self.status(target, engine, "done")
        length = len(SEQUENCE)
        write_model(folder / "model.cif", chains, absent=[1, 2])
        if ref:
            write_model(folder / "reference.cif", chains, absent=[], shift=0.8)
            write_model(folder / "templates.cif", chains, absent=[], shift=-0.8)
        if kind == "pLDDT":
            errors = [[float(abs(row - column)) for column in range(length)] for row in range(length)]
            matrix = {"predicted_aligned_error": errors, "max_predicted_aligned_error": 31.0}
            (folder / "pae.json").write_text(json.dumps([matrix]))
        scores = {
            "target": target,
            "engine": engine,
            "seed": 0,
            "length": length * len(chains),
            "chains": [
                {
                    "name": chain,
                    "chain": hashlib.sha256(SEQUENCE.encode()).hexdigest()[:16],
                    "sequence": SEQUENCE,
                    "length": length,
                    "modelled": [[2, length]],
                    "invented": [[10, 14]],
                    "msa_depth": 40,
                    "msa_neff": 12.5,
                    "msa_coverage": [min(40, 5 + 3 * index) for index in range(length)],
                }
                for chain in chains
            ],
            "confidence": {"kind": kind, "mean": mean},
            "ptm": 0.81 if kind == "pLDDT" else None,
            "iptm": None,
            "templates": [{"entry": "4zhl", "chain": "U", "identity": 0.41, "coverage": 0.97, "evalue": 3e-41}],
            "clashes": {"before": 17, "after": 1, "worst": [[["A", 5, "ALA", "CB"], ["A", 9, "GLN", "O"], 0.71]]},
            "violations": {"before": {}, "after": {}},
            "software": {"snakefold": "0.1.0", "openmm": "8.4"},
            "databases": [{"name": "mini_pdb", "version": "1", "licence": "CC0-1.0"}],
            "ramachandran": {
                "favoured": 28,
                "allowed": 1,
                "outliers": 1,
                "outlier_residues": [["A", 11, "ILE"]],
                "torsions": [[[index, -60.0 + index, -45.0] for index in range(3, length - 1)]] * len(chains),
            },
            "geometry": {
                "wrong_chirality": [],
                "cis_peptides": [],
                "twisted_peptides": [["A", 3, "ALA"]],
                "breaks": [],
            },
            "relaxed": True,
            "notes": ["2 residues at the start were left out."],
            "reference": {
                "name": "1abc",
                "tm_score": 0.931,
                "lddt": 0.772,
                "lddt_ca": 0.85,
                "rmsd_ca": 1.21,
                "coverage": 1.0,
                "dockq": None,
                "per_residue_lddt": [[None, None, *[0.8] * (length - 2)]] * len(chains),
            }
            if ref
            else None,
        }
        (folder / "scores.json").write_text(json.dumps(scores))
        rows = "".join(
            f">{target} {chain}\n{SEQUENCE}\n>4zhl_U\n{SEQUENCE[:10]}----{SEQUENCE[14:]}\n" for chain in chains
        )
        (folder / "alignment.fasta").write_text(rows)
        (folder / ".snakemake_timestamp").write_text("")
        return folder

    def write(self, title: str = "Helices", timings: Mapping[str, Any] | None = TIMINGS) -> None:
        write_report(
            self.folders,
            self.report,
            results=self.results,
            title=title,
            run=RUN,
            timings=timings,
            comparisons=[*self.results.glob(f"*/{COMPARISON}")],
        )


def make_run(results: Path) -> Run:
    run = Run(results)
    run.done("helix", "template", 81.2, ref=True)
    run.done("dimer-1.2_B@x+y", "template", 64.9, chains="AB")
    run.done("helix", "esmfold", 91.5, kind="pLDDT")
    run.done("T10", "template", 40.0)
    run.done("T9", "template", 55.5)
    run.status("orphan", "template", "skipped", step="fold", kind="no_template", reason="no template found")
    run.status(
        "hostile",
        "template",
        "failed",
        step="fold",
        kind="bad_template",
        reason=f"my.cif: {HOSTILE}",
        log=["reading my.cif", HOSTILE],
    )
    return run


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    made = make_run(tmp_path_factory.mktemp("odd #1 folder%20") / "results")
    made.write(title=f"Helices & {HOSTILE}")
    return made


# ---------------------------------------------------------------- the browser


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    path = next(filter(None, map(shutil.which, CHROMIUM_NAMES)), None)
    if path is None:
        pytest.fail("no Chromium on the PATH, which this test drives: run `make system-deps`")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=CHROMIUM_ARGS)
        yield browser
        browser.close()


@dataclass
class Opened:
    """A page, with everything it asked for and complained about."""

    page: Page
    requests: list[str] = field(default_factory=list)
    errors: list[str] = field(default_factory=list)

    def targets(self) -> list[str]:
        """The names in the table, from top to bottom."""
        return [key.rpartition("/")[0] for key in self.keys()]

    def keys(self) -> list[str]:
        rows = self.page.locator("#table tbody tr")
        return [str(key) for key in rows.evaluate_all("rows => rows.map(row => row.dataset.key)")]

    def choose(self, key: str) -> None:
        self.page.locator(f'tr[data-key="{key}"] button').click()

    def choose_drawn(self, key: str) -> None:
        self.choose(key)
        self.page.wait_for_function(
            "name => document.getElementById('panel-title')?.textContent === name", arg=key.rpartition("/")[0]
        )
        self.page.wait_for_selector("#viewer[data-drawn]")

    def picture(self) -> np.ndarray:
        """The viewer's drawing as an array of height x width x RGB."""
        self.page.evaluate("() => new Promise(done => requestAnimationFrame(() => requestAnimationFrame(done)))")
        shot = self.page.locator("#viewer canvas").first.screenshot()
        return np.asarray(Image.open(io.BytesIO(shot)).convert("RGB")).astype(int)


@pytest.fixture
def opened(browser: Browser, run: Run) -> Iterator[Opened]:
    yield from open_page(browser, run.report, width=1280)


@pytest.fixture
def table(browser: Browser, run: Run) -> Iterator[Opened]:
    """Too narrow for the panel to open by itself: quicker, where no model is looked at."""
    yield from open_page(browser, run.report, width=1000)


@pytest.fixture
def narrow(browser: Browser, run: Run) -> Iterator[Opened]:
    yield from open_page(browser, run.report, width=400)


def open_page(browser: Browser, report: Path, width: int, scheme: Any = "light") -> Iterator[Opened]:
    page = browser.new_page(viewport={"width": width, "height": 1100}, color_scheme=scheme)
    opened = Opened(page)
    page.on("request", lambda request: opened.requests.append(request.url))
    page.on("pageerror", lambda error: opened.errors.append(str(error)))
    page.on("console", lambda message: opened.errors.append(message.text) if message.type == "error" else None)
    page.goto((report / "index.html").as_uri())
    page.wait_for_selector("body[data-ready]")
    yield opened
    page.close()
    assert opened.errors == []
    outside = [url for url in opened.requests if not url.startswith(("file:", "data:", "blob:"))]
    assert outside == []


def colourful(picture: np.ndarray) -> float:
    """The share of pixels that are neither white nor grey."""
    return float(((picture.max(axis=2) - picture.min(axis=2)) > 40).mean())


def test_every_prediction_has_a_row_in_the_order_given(table: Opened, run: Run) -> None:
    assert table.keys() == [f"{folder.parent.name}/{folder.name}" for folder in run.folders]
    counts = table.page.locator("#counts dd").all_inner_texts()
    assert counts == ["5", "1", "1"]
    assert table.page.locator("#shown").inner_text() == "7 predictions"


def test_columns_sort_both_ways_and_unknown_values_stay_last(table: Opened) -> None:
    header = table.page.locator('th[data-key="mean_confidence"]')
    assert header.get_attribute("aria-sort") is None
    header.locator("button").click()
    assert header.get_attribute("aria-sort") == "ascending"
    rising = ["T10/template", "T9/template", "dimer-1.2_B@x+y/template", "helix/template", "helix/esmfold"]
    assert table.keys()[:5] == rising
    header.locator("button").click()
    assert header.get_attribute("aria-sort") == "descending"
    assert table.keys()[:5] == rising[::-1]
    assert set(table.targets()[5:]) == {"orphan", "hostile"}


def test_headers_sort_from_the_keyboard_and_names_sort_by_their_numbers(table: Opened) -> None:
    table.page.locator('th[data-key="target"] button').focus()
    table.page.keyboard.press("Enter")
    targets = table.targets()
    assert targets.index("T9") < targets.index("T10")
    assert table.page.locator("th[aria-sort]").count() == 1


def test_the_text_filter_and_the_status_filter_work_together(table: Opened) -> None:
    table.page.fill("#filter", "HELIX")
    assert table.keys() == ["helix/template", "helix/esmfold"]
    assert table.page.locator("#shown").inner_text() == "2 of 7 predictions"
    table.page.fill("#filter", "no template")
    assert table.targets() == ["orphan"]
    table.page.locator('#status-filter input[value="failed"]').check()
    assert table.keys() == []
    assert table.page.locator("#nothing").is_visible()
    table.page.locator("#clear-filter").click()
    assert len(table.keys()) == 7


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_the_model_is_drawn_and_changes_with_the_colouring(browser: Browser, run: Run, scheme: str) -> None:
    for opened in open_page(browser, run.report, width=1280, scheme=scheme):
        opened.choose_drawn("dimer-1.2_B@x+y/template")
        by_confidence = opened.picture()
        assert colourful(by_confidence) > 0.01
        opened.page.locator('#colour-by input[value="chain"]').check()
        by_chain = opened.picture()
        assert colourful(by_chain) > 0.01
        assert (by_confidence != by_chain).any(axis=2).mean() > 0.01
        opened.page.locator('#colour-by input[value="structure"]').check()
        reds = opened.picture()
        # Nearly everything is helix, which is drawn in red.
        drawn = (reds.max(axis=2) - reds.min(axis=2)) > 60
        assert (reds[drawn][:, 0] > reds[drawn][:, 2]).mean() > 0.8


def test_the_reference_and_the_invented_loops_can_be_shown_and_hidden(opened: Opened) -> None:
    opened.choose_drawn("helix/template")
    alone = opened.picture()
    opened.page.locator('[data-toggle="reference"]').check()
    assert (opened.picture() != alone).any()
    opened.page.locator('[data-toggle="reference"]').uncheck()
    assert (opened.picture() == alone).all()
    opened.page.locator('[data-toggle="invented"]').uncheck()
    assert (opened.picture() != alone).any()
    opened.page.locator('[data-toggle="invented"]').check()
    # Reference and template have a toggle each.
    opened.page.locator('[data-toggle="template"]').check()
    template = opened.picture()
    assert (template != alone).any()
    opened.page.locator('[data-toggle="reference"]').check()
    assert (opened.picture() != template).any()
    assert opened.page.locator("#viewer").get_attribute("data-overlays") == "reference template"
    opened.choose_drawn("T9/template")
    assert opened.page.locator('[data-toggle="reference"], [data-toggle="template"]').count() == 0


def test_the_track_shows_confidence_gaps_and_the_reference(opened: Opened) -> None:
    opened.choose_drawn("helix/template")
    track = opened.page.locator('.track[data-chain="A"]')
    heights = track.locator(".bars rect").evaluate_all("bars => bars.map(bar => bar.height.baseVal.value)")
    assert len(heights) == len(SEQUENCE) - 2
    assert heights == sorted(heights)  # the B-factors of write_model rise along the chain
    assert track.locator(".invented").count() == 1
    assert track.locator(".unmodelled").count() == 1
    assert track.locator(".outlier").count() == 1
    assert track.locator("path.lddt").count() == 1
    assert track.locator("path.coverage").count() == 1
    opened.choose_drawn("dimer-1.2_B@x+y/template")
    assert opened.page.locator(".track").count() == 2
    assert opened.page.locator(".track path.lddt").count() == 0


def test_pointing_at_the_track_marks_the_residue_in_the_model(opened: Opened) -> None:
    opened.choose_drawn("helix/template")
    svg = opened.page.locator(".track svg")
    svg.scroll_into_view_if_needed()
    before = opened.picture()
    box = svg.bounding_box()
    assert box is not None
    opened.page.mouse.move(box["x"] + box["width"] * 0.6, box["y"] + 30)
    opened.page.wait_for_selector('#viewer[data-marked^="A:"]')
    assert (opened.picture() != before).any(axis=2).sum() > 50
    number = int(str(opened.page.locator("#viewer").get_attribute("data-marked")).removeprefix("A:"))
    readout = opened.page.locator("#readout").inner_text()
    assert readout.startswith(f"{THREE[SEQUENCE[number - 1]].capitalize()} {number} · estimated lDDT {30 + 2 * number}")
    assert "lDDT-CA to the reference 80" in readout


def test_the_track_is_a_slider_for_the_keyboard(opened: Opened) -> None:
    opened.choose_drawn("helix/template")
    svg = opened.page.locator(".track svg")
    svg.focus()
    opened.page.keyboard.press("Home")
    assert "Met 1, not modelled" in str(svg.get_attribute("aria-valuetext"))
    for _ in range(10):
        opened.page.keyboard.press("ArrowRight")
    assert svg.get_attribute("aria-valuenow") == "11"
    assert str(svg.get_attribute("aria-valuetext")).endswith("invented")
    assert opened.page.locator("#viewer").get_attribute("data-marked") == "A:11"


def test_pointing_at_the_model_names_the_residue(opened: Opened) -> None:
    opened.choose_drawn("helix/template")
    picture = opened.picture()
    rows, columns = np.nonzero((picture.max(axis=2) - picture.min(axis=2)) > 60)
    middle = len(rows) // 2
    box = opened.page.locator("#viewer canvas").first.bounding_box()
    assert box is not None
    opened.page.mouse.move(box["x"] + 2, box["y"] + 2)
    opened.page.mouse.move(box["x"] + int(columns[middle]), box["y"] + int(rows[middle]), steps=4)
    opened.page.wait_for_selector('#viewer[data-marked^="A:"]')
    assert "estimated lDDT" in opened.page.locator("#readout").inner_text()


def test_numbers_templates_alignment_and_files_are_told(opened: Opened, run: Run) -> None:
    opened.choose_drawn("helix/template")
    panel = opened.page.locator("#panel").inner_text()
    for said in (
        "81.2",
        "0.931",
        "0.772",
        "1.21",
        "17 → 1",
        "28 (93.3 %)",
        "4zhl_U",
        "41 %",
        "3e-41",
        "1abc",
        "Ile 12",
    ):
        assert said in panel
    assert "Twisted peptide bonds" in panel
    assert "Chain breaks" not in panel
    assert "7.3 s" in panel  # from data/timings.js
    assert "MKTAYIAKQR----" in opened.page.locator(".alignment").inner_text()
    links = opened.page.locator(".downloads a")
    assert "model.cif" in links.all_inner_texts()
    assert ".snakemake_timestamp" not in links.all_inner_texts()
    for target, engine in (("helix", "template"), ("dimer-1.2_B@x+y", "template")):
        opened.choose_drawn(f"{target}/{engine}")
        address = links.first.evaluate("link => link.href")
        assert Path(unquote(address.removeprefix("file://"))) == run.results / target / engine / "model.cif"


def test_plddt_wears_alphafolds_colours_and_an_estimate_does_not(opened: Opened) -> None:
    opened.choose_drawn("helix/esmfold")
    fills = opened.page.locator(".bars rect").evaluate_all(
        "bars => [...new Set(bars.map(bar => bar.getAttribute('fill')))]"
    )
    assert set(fills) == {"#ff7d45", "#ffdb13", "#65cbf3", "#0053d6"}
    assert "very high" in opened.page.locator(".under-viewer").inner_text()
    opened.choose_drawn("helix/template")
    estimated = opened.page.locator(".bars rect").evaluate_all("bars => bars.map(bar => bar.getAttribute('fill'))")
    assert not set(estimated) & set(fills)
    assert "estimated lDDT" in opened.page.locator(".under-viewer").inner_text()
    assert "pLDDT" not in opened.page.locator("#panel").inner_text()


def test_what_comes_from_outside_is_text_and_never_runs(opened: Opened) -> None:
    assert opened.page.locator("h1").inner_text() == f"Helices & {HOSTILE}"
    assert HOSTILE in (opened.page.locator("#problems").text_content() or "")
    opened.choose("hostile/template")
    opened.page.wait_for_selector(".banner.failed")
    panel = opened.page.locator("#panel")
    assert panel.inner_text().count(HOSTILE) == 2  # the reason and the log
    assert panel.locator("script, img").count() == 0
    assert opened.page.evaluate("window.hacked") is None
    policy = opened.page.locator('meta[http-equiv="Content-Security-Policy"]').get_attribute("content")
    assert policy is not None
    assert "connect-src 'none'" in policy
    assert "unsafe" not in policy


def test_failures_and_skips_say_why_and_what_to_do(table: Opened) -> None:
    table.page.locator("#sections a").nth(1).click()
    assert table.page.locator("#predictions").is_hidden()
    groups = table.page.locator("#problems .group")
    assert groups.count() == 2
    failed, skipped = groups.nth(0), groups.nth(1)
    assert "Bad template" in failed.inner_text()
    assert "python -m snakefold retry" in failed.inner_text()
    assert "no template found" in skipped.inner_text()
    assert skipped.locator(".remedy code").all_inner_texts() == ["template"]
    failed.locator("summary").click()
    failed.locator("pre").filter(has_text="reading my.cif").wait_for()
    assert skipped.locator("summary").count() == 0  # its log is empty


def test_how_it_was_made_is_told(table: Opened) -> None:
    table.page.locator("#sections a").nth(2).click()
    made = table.page.locator("#made").inner_text()
    for said in ("openmm", "8.4", "mini_pdb", "CC0-1.0", "cd" * 32, "Fold", "13 s"):
        assert said in made


def test_data_of_a_prediction_load_only_when_it_is_chosen(narrow: Opened) -> None:
    assert not [url for url in narrow.requests if "3Dmol" in url or "template.js" in url]
    narrow.choose_drawn("T9/template")
    assert [url.rpartition("/")[2] for url in narrow.requests if "template.js" in url] == ["T9.template.js"]


def test_on_a_phone_the_panel_covers_the_page_and_gives_it_back(narrow: Opened) -> None:
    page = narrow.page
    assert page.evaluate("document.documentElement.scrollWidth") <= 400
    assert page.locator("#panel").is_hidden()
    narrow.choose_drawn("helix/template")
    box = page.locator("#panel").bounding_box()
    assert box is not None
    assert (box["x"], box["width"]) == (0, 400)
    assert page.evaluate("document.getElementById('panel').scrollWidth") <= 400
    assert page.locator("#column").evaluate("column => column.inert") is True
    page.keyboard.press("Escape")
    assert page.locator("#panel").is_hidden()
    assert page.locator("#column").evaluate("column => column.inert") is False
    assert page.evaluate("document.activeElement.dataset.key") == "helix/template"


def test_an_address_leads_to_a_prediction_and_back(opened: Opened) -> None:
    opened.choose_drawn("helix/esmfold")
    opened.choose_drawn("T10/template")
    opened.page.go_back()
    opened.page.wait_for_function("() => document.getElementById('panel-title').textContent === 'helix'")
    assert opened.page.locator("tr.selected").get_attribute("data-key") == "helix/esmfold"


def test_a_thousand_predictions_stay_usable(browser: Browser, tmp_path: Path) -> None:
    run = Run(tmp_path / "results")
    for number in range(1000):
        run.status(f"t{number}", "template", "skipped", kind="no_template", reason=f"no template {number % 7}")
    run.write(timings=None)
    for opened in open_page(browser, run.report, width=1280):
        assert opened.page.locator("#shown").inner_text() == "1,000 predictions"
        first = len(opened.keys())
        assert 0 < first < 1000  # the rest follows as the reader scrolls
        opened.page.locator("#sentinel").scroll_into_view_if_needed()
        opened.page.wait_for_function("first => document.querySelectorAll('#table tbody tr').length > first", arg=first)
        opened.page.fill("#filter", "t99")
        assert len(opened.keys()) == 11
        took = opened.page.evaluate(
            """() => {
                document.getElementById('filter').value = '';
                const start = performance.now();
                document.getElementById('filter').dispatchEvent(new Event('input'));
                document.querySelector('th[data-key="target"] button').click();
                document.body.getBoundingClientRect();
                return performance.now() - start;
            }"""
        )
        assert took < 1000  # milliseconds, for a filter, a sort and the layout; some 50 on an idle machine
        # A reason is told once, with the first of those that it holds for.
        opened.page.keyboard.press("Escape")
        opened.page.locator("#sections a").nth(1).click()
        cases = opened.page.locator("#problems .case")
        assert cases.count() == 7
        assert cases.first.locator("li").count() == 60
        cases.first.locator("button").click()
        assert cases.first.locator("li").count() == 143


def test_rows_are_filtered_by_numbers_engine_and_flags(table: Opened) -> None:
    table.page.locator("#filters summary").click()
    menu = table.page.locator("#filters-menu")
    menu.locator('[data-filter="confidence-from"]').fill("60")
    assert table.keys() == ["helix/template", "dimer-1.2_B@x+y/template", "helix/esmfold"]
    menu.locator('[data-filter="engines"][value="template"]').check()
    menu.locator('[data-filter="length-to"]').fill("40")
    assert table.keys() == ["helix/template"]
    menu.locator('[data-filter="flags"][value="partial"]').check()
    assert table.keys() == ["helix/template"]  # 30 of 32 residues
    assert menu.locator('[data-filter="flags"][value="not_relaxed"]').count() == 0  # true of none
    table.page.keyboard.press("Escape")
    assert menu.is_hidden()
    chips = table.page.locator("#active .chip")
    assert chips.all_inner_texts() == ["Confidence ≥ 60", "Length ≤ 40", "template", "Partial model"]
    chips.first.click()
    assert set(table.targets()) == {"helix", "T10", "T9"}
    table.page.fill("#filter", "nothing like it")
    table.page.locator("#clear-filter").click()
    assert len(table.keys()) == 7
    assert chips.count() == 0


def test_a_partial_model_tells_its_share_in_the_table(table: Opened) -> None:
    assert "94 % modelled" in table.page.locator('tr[data-key="helix/template"]').inner_text()


def test_chosen_columns_are_remembered(table: Opened) -> None:
    heads = table.page.locator("#table th")
    assert "rmsd_ca" not in heads.evaluate_all("heads => heads.map(head => head.dataset.key)")
    table.page.locator("#columns summary").click()
    table.page.locator('#columns-menu input[value="rmsd_ca"]').check()
    table.page.locator('#columns-menu input[value="length"]').uncheck()
    table.page.reload()
    table.page.wait_for_selector("body[data-ready]")
    keys = heads.evaluate_all("heads => heads.map(head => head.dataset.key)")
    assert "rmsd_ca" in keys
    assert "length" not in keys
    table.page.locator("#columns summary").click()
    table.page.locator("#columns-menu .plain").click()
    assert "length" in heads.evaluate_all("heads => heads.map(head => head.dataset.key)")


def test_a_range_dragged_along_the_track_fills_the_view(opened: Opened) -> None:
    opened.page.emulate_media(reduced_motion="reduce")
    opened.choose_drawn("helix/template")
    whole = opened.picture()
    svg = opened.page.locator(".track > svg")
    svg.scroll_into_view_if_needed()
    box = svg.bounding_box()
    assert box is not None
    opened.page.mouse.move(box["x"] + box["width"] * 0.4, box["y"] + 30)
    opened.page.mouse.down()
    opened.page.mouse.move(box["x"] + box["width"] * 0.6, box["y"] + 30, steps=3)
    opened.page.mouse.up()
    opened.page.wait_for_selector('#viewer[data-range^="A:"]')
    start, end = str(opened.page.locator("#viewer").get_attribute("data-range")).removeprefix("A:").split("-")
    assert 10 <= int(start) < int(end) <= 22
    assert (opened.picture() != whole).any(axis=2).mean() > 0.05
    assert opened.page.locator(".track .chosen").get_attribute("visibility") == "visible"
    svg.focus()
    opened.page.keyboard.press("Escape")
    assert opened.page.locator("#viewer").get_attribute("data-range") == ""
    assert opened.page.locator("#panel").is_visible()  # the first Escape drops the range, not the panel
    opened.page.keyboard.press("Shift+ArrowRight")
    opened.page.keyboard.press("Shift+ArrowRight")
    opened.page.keyboard.press("Enter")
    first, last = str(opened.page.locator("#viewer").get_attribute("data-range")).removeprefix("A:").split("-")
    assert int(last) - int(first) == 2


def test_outliers_and_clashes_lead_to_their_residues(opened: Opened) -> None:
    opened.choose_drawn("helix/template")
    viewer = opened.page.locator("#viewer")
    opened.page.locator(".chip", has_text="Ala 6 CB – Gln 10 O, 0.71 Å").click()
    assert viewer.get_attribute("data-marked") == "A:6"
    plot = opened.page.locator(".ramachandran")
    plot.locator(".outlier").click()
    assert viewer.get_attribute("data-marked") == "A:12"
    assert plot.locator(".cursor-dot").get_attribute("visibility") == "visible"
    assert "1 outliers" in str(plot.get_attribute("aria-label"))


def test_keys_act_unless_turned_off_or_typing(opened: Opened) -> None:
    opened.choose_drawn("helix/template")
    page = opened.page
    page.keyboard.press("?")
    dialog = page.locator("dialog#keys")
    assert "zoom in on the range" in dialog.inner_text()
    page.keyboard.press("Escape")
    assert dialog.is_hidden()
    assert page.locator("#panel").is_visible()
    for key in "ct":
        page.keyboard.press(key)
    assert page.locator('#colour-by input[value="chain"]').is_checked()
    assert page.locator("#viewer").get_attribute("data-overlays") == "template"
    page.keyboard.press("j")
    page.wait_for_function("() => document.getElementById('panel-title').textContent.startsWith('dimer')")
    page.keyboard.press("/")
    page.keyboard.type("kk")  # letters, not keys
    assert page.locator("#filter").input_value() == "kk"
    assert page.locator("#panel-title").inner_text().startswith("dimer")
    page.locator("#filter").fill("")
    page.locator("#show-keys").click()
    page.locator("#single-keys").uncheck()
    page.locator("#close-keys").click()
    page.keyboard.press("k")
    assert page.locator("#panel-title").inner_text().startswith("dimer")


def test_aligned_errors_are_drawn_where_an_engine_gives_them(opened: Opened) -> None:
    opened.choose_drawn("helix/esmfold")
    canvas = opened.page.locator("canvas.pae")
    opened.page.locator(".plot .ramp").wait_for()
    colours = canvas.evaluate(
        "canvas => [[3, 3], [31, 0]].map(([x, y]) => [...canvas.getContext('2d').getImageData(x, y, 1, 1).data])"
    )
    assert sum(colours[0][:3]) < 250 < 700 < sum(colours[1][:3])  # dark on the diagonal, light at the corner
    canvas.hover(position={"x": 5, "y": 5})
    opened.page.get_by_text("is off by 0.0 Å").wait_for()
    assert opened.page.locator("#viewer").get_attribute("data-marked") == ""  # residue 1 is not modelled
    opened.choose_drawn("helix/template")
    assert opened.page.locator("canvas.pae").count() == 0


# ---------------------------------------------------------------- several engines


def bent(count: int, absent: int) -> dict[int, dict[str, np.ndarray]]:
    """The helix, its second half moved sideways, without its first residues."""
    return {
        index: {name: xyz + (np.array([0.0, 5.0, 0.0]) if index >= count // 2 else 0.0) for name, xyz in atoms.items()}
        for index, atoms in enumerate(helix(count))
        if index >= absent
    }


@pytest.fixture(scope="module")
def engines(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """Two engines' models of a homodimer: the second lies elsewhere, has the chains exchanged and one of them bent."""
    run = Run(tmp_path_factory.mktemp("engines") / "results")
    length = len(SEQUENCE)
    straight = {index: atoms for index, atoms in enumerate(helix(length)) if index > 1}
    turn = np.array([[0.0, -1.0, 0.0], [0.0, 0.0, -1.0], [1.0, 0.0, 0.0]])

    def chain(atoms: Mapping[int, Mapping[str, np.ndarray]], away: float, turned: np.ndarray) -> ModelChain:
        place = np.array([0.0, away, 0.3 * away])
        moved = {
            index: {name: turned @ (xyz + place) for name, xyz in of_residue.items()}
            for index, of_residue in atoms.items()
        }
        return ModelChain(
            sequence=SEQUENCE, atoms=moved, confidence=[80.0 if index in moved else None for index in range(length)]
        )

    for engine, kind, first, second, turned in (
        ("template", "estimated lDDT", (straight, 0.0), (straight, 12.0), np.eye(3)),
        ("esmfold", "pLDDT", (bent(length, 0), 12.0), (bent(length, 0), 0.0), turn),
    ):
        folder = run.done("dimer", engine, 80.0, chains="AB", kind=kind)
        write_structure(folder / "model.cif", [chain(*first, turned), chain(*second, turned)])
    compare_engines(run.folders, run.results / "dimer" / COMPARISON)
    run.status("dimer", "boltz", "failed", step="fold", reason="out of memory")
    run.done("alone", "template", 70.0)
    run.write(title="Engines")
    return run


def test_several_engines_of_a_target_are_compared_in_its_panel(browser: Browser, engines: Run) -> None:
    (pair,) = json.loads((engines.results / "dimer" / COMPARISON).read_text())["pairs"]
    for opened in open_page(browser, engines.report, width=1280):
        page = opened.page
        opened.choose_drawn("dimer/template")
        cells = page.locator("#agreement tbody tr").locator("th, td").all_inner_texts()
        assert [cell.replace("\xa0", " ") for cell in cells] == [
            "template – esmfold",
            *(f"{pair[score]:.3f}" for score in ("tm_score", "lddt_ca")),
            f"{pair['rmsd_ca']:.2f}",
            f"{pair['dockq']:.3f}",
            "94 %",  # 60 of 64 residues
        ]
        # The lane of each chain, and what is said of a residue.
        lane = page.locator('.track[data-chain="B"] .agreement rect')
        heights = lane.evaluate_all("bars => bars.map(bar => bar.height.baseVal.value)")
        assert len(heights) == len(SEQUENCE) - 2
        shown = [value for value in pair["per_residue_lddt"][1] if value is not None]
        assert heights == pytest.approx([30 * value for value in shown], abs=0.05)
        svg = page.locator('.track[data-chain="B"] svg')
        svg.focus()
        page.keyboard.press("End")
        assert page.locator("#viewer").get_attribute("data-marked") == f"B:{len(SEQUENCE)}"
        assert f"lDDT-CA to esmfold {100 * shown[-1]:.0f}" in page.locator("#readout").inner_text()
        # Colours, and the other model laid over this one.
        by_confidence = opened.picture()
        page.locator('#colour-by input[value="agreement"]').check()
        plain = opened.picture()
        assert (plain != by_confidence).any(axis=2).mean() > 0.005
        assert "lDDT-CA to esmfold" in page.locator(".under-viewer").inner_text()
        page.locator('[data-toggle="engine-esmfold"]').check()
        page.wait_for_selector('#viewer[data-overlays="engine-esmfold"]')
        assert (opened.picture() != plain).any()
        legend = page.locator(".under-viewer .legend", has_text="Model of esmfold").locator("i")
        colour = legend.evaluate("swatch => getComputedStyle(swatch).backgroundColor")
        overlays = page.evaluate("snakefold.palettes.overlays.light.engines")
        place = sorted(set(page.evaluate("snakefold.rows.map(row => row.engine)"))).index("esmfold")
        np.testing.assert_array_equal(linear(colour), linear(overlays[place]))
        page.locator("body").press("e")
        page.wait_for_selector('#viewer[data-overlays=""]')
        assert page.locator("#agreement a").get_attribute("href") == "#p=dimer%2Fesmfold"
        alone = page.evaluate("snakefold.loadPrediction(snakefold.byKey.get('alone/template'))")
        assert (alone["pairs"], alone["chains"][0]["agreement"]) == ([], None)
        assert not opened.errors


OFF = """async ([here, there]) => {
    const rows = [here, there].map(key => snakefold.byKey.get(key));
    const found = await Promise.all(rows.map(snakefold.loadPrediction));
    const traces = found.map(data => new Map(data.model.split("\\n").filter(line => line.includes(" CA "))
        .map(line => line.split(/\\s+/)).map(part => [part[5] + part[6], part.slice(7, 10).map(Number)])));
    const move = snakefold.carry(found[0].pairs[0], rows[1].engine);
    const exchanged = {A: "B", B: "A"};
    const off = [];
    for (const [name, xyz] of traces[0]) {
        const there = traces[1].get(exchanged[name[0]] + name.slice(1));
        if (!there) continue; // a residue that the other model lacks
        const other = move(there);
        off.push(Math.hypot(...other.map((value, at) => value - xyz[at])));
    }
    return off;
}"""


@pytest.mark.parametrize("way", [("template", "esmfold"), ("esmfold", "template")])
def test_the_other_engines_model_is_carried_onto_this_one(browser: Browser, engines: Run, way: Sequence[str]) -> None:
    for opened in open_page(browser, engines.report, width=1000):
        off = opened.page.evaluate(OFF, [f"dimer/{engine}" for engine in way])
        assert len(off) == 60
        # The halves that are not bent lie on each other, as far as the best superposition of all lets them.
        assert min(off) < 1.5
        assert np.mean(off) < 3.5


def test_the_table_sorts_and_filters_by_agreement_where_there_is_any(browser: Browser, engines: Run, run: Run) -> None:
    (pair,) = json.loads((engines.results / "dimer" / COMPARISON).read_text())["pairs"]
    for opened in open_page(browser, engines.report, width=1180):
        page = opened.page
        cell = page.locator('tr[data-key="dimer/esmfold"] td').all_inner_texts()
        assert f"{pair['lddt_ca']:.3f}" in cell
        page.locator('th[data-key="agreement_lddt"] button').click()
        assert opened.keys()[2:] == ["dimer/boltz", "alone/template"]  # without agreement: last
        page.locator("#filters summary").click()
        page.locator('[data-filter="agreement-from"]').fill(f"{pair['lddt_ca'] - 0.05:.2f}")
        assert opened.keys() == ["dimer/template", "dimer/esmfold"]
        page.locator('[data-filter="agreement-from"]').fill(f"{pair['lddt_ca'] + 0.05:.2f}")
        assert opened.keys() == []
        assert page.locator("#active .chip").inner_text().startswith("Agreement ≥ 0.")
    for opened in open_page(browser, run.report, width=1180):
        assert opened.page.locator('th[data-key="agreement_lddt"]').count() == 0
        assert opened.page.locator('[data-filter^="agreement"]').count() == 0


def test_one_file_is_the_whole_report(browser: Browser, run: Run, tmp_path: Path) -> None:
    shutil.copy(run.report / "single.html", tmp_path / "index.html")
    for opened in open_page(browser, tmp_path, width=1280):
        opened.choose_drawn("helix/esmfold")
        assert colourful(opened.picture()) > 0.01
        opened.page.locator(".plot .ramp").wait_for()
        assert opened.page.locator(".downloads a").count() == 0  # the files are elsewhere
        assert {url.rpartition("/")[2] for url in opened.requests if url.startswith("file:")} == {"index.html"}
        assert opened.page.evaluate("window.hacked") is None
        assert "unsafe" not in str(opened.page.locator("meta[http-equiv]").get_attribute("content"))


def test_paper_gets_the_open_prediction_or_the_table(opened: Opened) -> None:
    opened.choose_drawn("helix/template")
    page = opened.page
    page.evaluate("dispatchEvent(new Event('beforeprint'))")
    page.emulate_media(media="print")
    assert page.locator("#column").is_hidden()
    assert page.locator("#viewer img.printed").evaluate("image => image.naturalWidth") > 100
    page.evaluate("dispatchEvent(new Event('afterprint'))")
    assert page.locator("#viewer img.printed").count() == 0
    page.evaluate("document.body.dataset.print = 'page'; dispatchEvent(new Event('beforeprint'))")
    assert page.locator("#panel").is_hidden()
    assert page.locator("#table").is_visible()


@pytest.mark.parametrize("width", [400, 1024, 1600])
def test_odd_names_and_sizes_fit_the_page(browser: Browser, odd: Run, width: int) -> None:
    for opened in open_page(browser, odd.report, width=width):
        page = opened.page
        frame = page.locator(".table-frame")
        assert page.evaluate("document.documentElement.scrollWidth") <= width
        assert frame.evaluate("frame => frame.scrollWidth - frame.clientWidth") <= 1
        page.locator('tr[data-key^="LONG"] button').click()
        page.locator("#panel .downloads").wait_for()
        assert page.locator("#panel").evaluate("panel => panel.scrollWidth - panel.clientWidth") <= 1


@pytest.fixture(scope="module")
def odd(tmp_path_factory: pytest.TempPathFactory) -> Run:
    made = Run(tmp_path_factory.mktemp("odd") / "results")
    made.status("LONG" + "NAME" * 20, "template", "failed", kind="bad_msa", reason="x" * 400, log=["y" * 400])
    made.status("long_" + "name_" * 20, "a_rather_long_engine", "skipped", kind="no_template", reason="none")
    (made.done("plain", "template", 70.0, ref=True) / "model.cif").unlink()  # no drawing, which takes long
    made.write(title="a_title_" * 12)
    return made


def test_a_run_without_predictions_says_so(browser: Browser, tmp_path: Path) -> None:
    run = Run(tmp_path / "results")
    run.write()
    for opened in open_page(browser, run.report, width=1280):
        assert opened.page.locator("#nothing").inner_text() == "There are no predictions."
        assert opened.page.locator("#panel").is_hidden()


# ---------------------------------------------------------------- colours

# Machado, Oliveira and Fernandes (2009) IEEE Trans. Vis. Comput. Graph. 15, 1291-1298: severity 1.0, on linear RGB.
BLINDNESS = {
    "none": np.eye(3),
    "protanopia": np.array(
        [[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216], [-0.003882, -0.048116, 1.051998]]
    ),
    "deuteranopia": np.array(
        [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.011820, 0.042940, 0.968881]]
    ),
    "tritanopia": np.array(
        [[1.255528, -0.076749, -0.178779], [-0.078411, 0.930809, 0.147602], [0.004733, 0.691367, 0.303900]]
    ),
}


def linear(colour: str) -> np.ndarray:
    if colour.startswith("#"):
        channels = np.array([int(colour[at : at + 2], 16) for at in (1, 3, 5)]) / 255
    else:
        channels = np.array([int(part) for part in colour.removeprefix("rgb(").rstrip(")").split(",")]) / 255
    return np.where(channels <= 0.04045, channels / 12.92, ((channels + 0.055) / 1.055) ** 2.4)


def lab(rgb: np.ndarray) -> np.ndarray:
    """CIELAB (D65) of linear RGB."""
    to_xyz = np.array([[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]])
    xyz = to_xyz @ np.clip(rgb, 0, 1) / np.array([0.9505, 1.0, 1.089])
    root = np.where(xyz > 0.008856, np.cbrt(xyz), 7.787 * xyz + 16 / 116)
    return np.array([116 * root[1] - 16, 500 * (root[0] - root[1]), 200 * (root[1] - root[2])])


# The page's colours by their names in the style sheet.
COLOURS = """names => Object.fromEntries(names.map(
    name => [name, getComputedStyle(document.documentElement).getPropertyValue('--' + name).trim()]))"""


def contrast(one: str, other: str) -> float:
    """As WCAG 2.2 defines it."""
    dark, light = sorted(float(np.array([0.2126, 0.7152, 0.0722]) @ linear(colour)) for colour in (one, other))
    return (light + 0.05) / (dark + 0.05)


@pytest.mark.parametrize("blindness", BLINDNESS)
def test_colours_stay_apart_for_the_colour_blind(palettes: Mapping[str, Any], blindness: str) -> None:
    def apart(one: str, other: str) -> float:
        first, second = (lab(BLINDNESS[blindness] @ linear(colour)) for colour in (one, other))
        return float(np.linalg.norm(first - second))

    bands, ramp, structure = palettes["bands"], palettes["ramp"], palettes["structure"]
    assert min(apart(one, other) for one, other in itertools.combinations(bands, 2)) > 12
    # Neighbouring stops differ visibly, and the untrusted half is never taken for the trusted.
    assert min(map(apart, ramp, ramp[1:])) > 6
    assert min(apart(low, high) for low in ramp[:2] for high in ramp[3:]) > 12
    assert min(apart(one, other) for one, other in itertools.combinations(structure, 2)) > 12
    assert min(apart(one, other) for one, other in itertools.combinations(palettes["chains"][:6], 2)) > 6
    errors = [lab(linear(colour))[0] for colour in palettes["errors"]]
    assert errors == sorted(errors)  # by lightness alone
    agreement = palettes["agreement"]
    assert min(map(apart, agreement, agreement[1:])) > 6
    assert min(apart(low, high) for low in agreement[:2] for high in agreement[3:]) > 12
    for overlay in palettes["overlays"].values():
        assert apart(overlay["reference"], overlay["template"]) > 25
        colours = [overlay["reference"], overlay["template"], *overlay["engines"]]
        for one, other in itertools.combinations(colours, 2):
            assert apart(one, other) > 14, (one, other)


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_each_engine_has_a_colour_that_stands_out_from_the_stage(
    browser: Browser, run: Run, palettes: Mapping[str, Any], scheme: str
) -> None:
    overlays = palettes["overlays"][scheme]
    assert len(overlays["engines"]) >= len(ENGINES)
    for opened in open_page(browser, run.report, width=1000, scheme=scheme):
        grounds = opened.page.evaluate(COLOURS, ["stage", "stage-edge", "surface"])
        for name, ground in grounds.items():
            for colour in (overlays["reference"], overlays["template"], *overlays["engines"]):
                assert contrast(colour, ground) >= 3, (colour, name)


@pytest.fixture(scope="module")
def palettes(browser: Browser, run: Run) -> Mapping[str, Any]:
    for opened in open_page(browser, run.report, width=1000):
        return opened.page.evaluate("snakefold.palettes")
    raise AssertionError("no page")


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_text_stands_out_from_its_ground(browser: Browser, run: Run, scheme: str) -> None:
    grounds = {
        "paper": ["ink", "muted", "accent"],
        "surface": ["ink", "muted", "accent", "done", "skipped", "failed"],
        "sunken": ["ink", "muted", "accent"],
        "raised": ["ink"],
        "accent-tint": ["ink", "muted", "done", "skipped", "failed"],
        "failed-tint": ["ink", "muted"],
        "skipped-tint": ["ink", "muted", "skipped"],
    }
    names = sorted({*grounds, *itertools.chain(*grounds.values())})
    for opened in open_page(browser, run.report, width=1000, scheme=scheme):
        values = opened.page.evaluate(COLOURS, names)
        for ground, texts in grounds.items():
            for text in texts:
                assert contrast(values[ground], values[text]) >= 4.5, (scheme, text, ground)  # WCAG 2.2, AA


# ---------------------------------------------------------------- the files


def contents(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_two_runs_differ_in_their_timings_alone(tmp_path: Path) -> None:
    first, second = make_run(tmp_path / "one" / "results"), make_run(tmp_path / "other" / "place" / "results")
    first.write(timings={"steps": {"fold": 1.5}})
    second.write(timings={"steps": {"fold": 2.5}})
    one, two = contents(first.report), contents(second.report)
    assert one.keys() == two.keys()
    assert [name for name in one if one[name] != two[name]] == ["data/timings.js"]
    assert not [name for name, content in one.items() if str(tmp_path).encode() in content]


def test_the_viewer_comes_with_its_licence(run: Run) -> None:
    assert "University of Pittsburgh" in (run.report / "assets" / "3Dmol-LICENSE.txt").read_text()


def test_an_older_report_is_replaced_and_nothing_lies_beside_it(tmp_path: Path) -> None:
    run = make_run(tmp_path / "results")
    run.report.mkdir(parents=True)
    (run.report / "stale.html").write_text("old")
    run.write()
    assert not (run.report / "stale.html").exists()
    assert (run.report / "index.html").is_file()
    assert [path.name for path in run.results.iterdir() if path.name.startswith(".")] == []


def test_a_report_that_fails_leaves_the_older_one_untouched(tmp_path: Path) -> None:
    run = make_run(tmp_path / "results")
    run.write()
    before = contents(run.report)
    with pytest.raises(ValueError, match="JSON"):
        run.write(timings={"steps": {"fold": math.nan}})
    assert contents(run.report) == before
    assert [path.name for path in run.results.iterdir() if path.name.startswith(".")] == []


def test_predictions_that_would_share_a_file_are_refused(tmp_path: Path) -> None:
    run = Run(tmp_path / "results")
    run.status("a.b", "c", "skipped")
    run.status("a", "b.c", "skipped")
    with pytest.raises(SnakefoldError, match=r"a/b\.c and a\.b/c would share data/a\.b\.c\.js"):
        run.write()


def test_a_model_that_cannot_be_read_costs_only_its_picture(tmp_path: Path) -> None:
    run = Run(tmp_path / "results")
    (run.done("helix", "template", 80.0) / "model.cif").write_text("no mmCIF")
    run.write()
    text = (run.report / "data" / "helix.template.js").read_text()
    value = json.loads(text.removeprefix("snakefoldReport.prediction(").removesuffix(");\n"))
    assert value["model"] is None
    assert value["scores"]["clashes"]["before"] == 17


def test_the_report_of_the_shipped_example_shows_its_targets(browser: Browser, finished: Clone) -> None:
    for opened in open_page(browser, finished.folder / "results/report", width=1280):
        assert opened.page.locator("tr[data-key]").count() == 6
        opened.choose_drawn("trypsin/template")
        assert colourful(opened.picture()) > 0.01


def test_snakemakes_own_report_offers_page_table_and_models(finished: Clone, tmp_path: Path) -> None:
    finished.run("--report", str(tmp_path / "report.zip"))
    with zipfile.ZipFile(tmp_path / "report.zip") as archive:
        names = [name.rpartition("/")[2] for name in archive.namelist() if "/data/raw/" in name]
    assert sorted(names) == ["model.cif"] * 5 + ["model.pdb"] * 5 + ["single.html", "summary.tsv"]
