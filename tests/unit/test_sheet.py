import hashlib
from collections.abc import Callable
from pathlib import Path

import pytest

from snakefold.engines import ENGINES
from snakefold.engines.base import Engine, FoldTask, Limits
from snakefold.errors import FaultsError
from snakefold.outcome import Outcome
from snakefold.sheet import Chain, Target, read_targets, refusal

LYSOZYME = "KVFGRCELAAAMKRHGLDNYRGYSLGNWVCAAKFESNFNTQATNRNTDGSTDYGILQINSRWWCNDGRTPGSRNLCNIPCSALLSSDITASVNCAKK"
UBIQUITIN = "MQIFVKTLTGKTITLEVEPSDTIENVKAKIQDKEGIPPDQQRLIFAGKQLEDGRTLSDYNIQKESTLHLVLRLRGG"


class Predictor:
    """An engine of which only the limits matter."""

    version = "1"
    licence = "Apache-2.0"
    needs_msa = True
    needs_templates = False
    takes_template = False
    packages: tuple[str, ...] = ()
    weights: str | None = None
    gpus = 0

    def __init__(self, name: str, limits: Limits) -> None:
        self.name = name
        self.limits = limits

    def seconds(self, residues: int) -> float:
        return residues

    def reads_templates(self, chains: int) -> bool:
        return self.needs_templates

    def memory_mb(self, residues: int) -> int:
        return residues

    def gpu_memory_mb(self, residues: int) -> int:
        return residues if self.gpus else 0

    def predict(self, task: FoldTask, folder: Path) -> Outcome:
        raise AssertionError("sheets do not predict")


REGISTRY: dict[str, Engine] = {
    "template": Predictor("template", Limits(min_length=20, max_length=300, max_chains=4)),
    "esmfold": Predictor(
        "esmfold", Limits(min_length=10, max_length=200, max_chains=1, letters=frozenset("ACDEFGHIKLMNPQRSTVWYX"))
    ),
}


@pytest.fixture
def write(tmp_path: Path) -> Callable[..., Path]:
    def write_file(text: str | bytes, name: str = "sheet.tsv") -> Path:
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
        return path

    return write_file


def read(*paths: Path, **options: bool) -> tuple[Target, ...]:
    return read_targets(paths, engines=["template"], seed=7, registry=REGISTRY, **options)


def faults(*paths: Path, **options: bool) -> list[str]:
    """The faults of sheets, without the folder of the test in front."""
    with pytest.raises(FaultsError) as caught:
        read(*paths, **options)
    for fault in caught.value.faults:
        assert "\n" not in fault
        assert "; " in fault, f"no remedy in {fault!r}"
    return [fault.replace(f"{path.parent}/", "") for fault in caught.value.faults for path in paths[:1]]


def sequences(target: Target) -> list[str]:
    return [chain.sequence for chain in target.chains]


def test_a_minimal_row_takes_engines_and_seed_of_the_configuration(write: Callable[..., Path]) -> None:
    path = write(f"id\tsequence\nlyso\t{LYSOZYME}\n")
    (target,) = read(path)
    assert target == Target(
        id="lyso",
        chains=(Chain(sequence=LYSOZYME),),
        engines=("template",),
        seed=7,
        template=None,
        reference=None,
        file=path,
        row=2,
    )
    assert target.length == len(LYSOZYME)


def test_a_chain_is_named_by_its_sequence_and_a_search_by_its_msa_too() -> None:
    chain = Chain(sequence=UBIQUITIN)
    assert chain.id == hashlib.sha256(UBIQUITIN.encode()).hexdigest()[:16] == chain.search_id
    given = Chain(sequence=UBIQUITIN, msa=Path("a/b.a3m"))
    other = Chain(sequence=UBIQUITIN, msa=Path("a/c.a3m"))
    assert given.id == chain.id
    assert len({chain.search_id, given.search_id, other.search_id}) == 3


def test_all_columns_are_read_and_paths_belong_to_the_folder_of_the_sheet(
    write: Callable[..., Path], tmp_path: Path
) -> None:
    for name in ("sheets/u.a3m", "sheets/t.cif", "r.pdb"):
        write("x", name)
    path = write(
        "ID,Sequence,copies,engines,seed,msa,template,reference\n"
        f'pair,{LYSOZYME}:{UBIQUITIN},1:2,"template, esmfold template",3,:u.a3m,t.cif,../r.pdb\n',
        "sheets/s.csv",
    )
    (target,) = read(path)
    folder = tmp_path / "sheets"
    assert sequences(target) == [LYSOZYME, UBIQUITIN, UBIQUITIN]
    assert [chain.msa for chain in target.chains] == [None, folder / "u.a3m", folder / "u.a3m"]
    assert target.engines == ("template", "esmfold")
    assert target.seed == 3
    assert (target.template, target.reference) == (folder / "t.cif", folder / ".." / "r.pdb")


def test_equal_relative_msa_paths_of_two_sheets_are_two_searches(write: Callable[..., Path]) -> None:
    sheets = [write(f"id\tsequence\tmsa\n{name}\t{UBIQUITIN}\tu.a3m\n", f"{name}/s.tsv") for name in "ab"]
    first, second = read(*sheets, check_files=False)
    assert first.chains[0].id == second.chains[0].id
    assert first.chains[0].search_id != second.chains[0].search_id


def test_one_msa_for_a_homodimer_written_out_serves_both_chains(write: Callable[..., Path]) -> None:
    path = write(f"id\tsequence\tmsa\nd\t{UBIQUITIN}:{UBIQUITIN}\tu.a3m\n")
    (target,) = read(path, check_files=False)
    assert [chain.msa for chain in target.chains] == [path.parent / "u.a3m"] * 2
    assert target.chains[0] is target.chains[1]


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("s.tsv", f"id\tsequence\nu\t{UBIQUITIN}\n"),
        ("s.csv", f"id,sequence\r\nu,{UBIQUITIN}\r\n"),
        ("s.csv", f"id;sequence\nu;{UBIQUITIN}\n"),
        ("s.txt", f"sequence,id\n{UBIQUITIN},u"),
        ("s.tsv", f'\ufeffid\tsequence\t\n\n# a note with "\nu\t{UBIQUITIN.lower()}*\t\n\t\t\n'),
        ("s.csv", f'id,sequence\n"u"," {UBIQUITIN[:20]} {UBIQUITIN[20:]} "\n'),
        ("s.fasta", f">u some words\n{UBIQUITIN[:40]}\n{UBIQUITIN[40:]}*\n"),
        ("s.txt", f"# a note\n>u\r\n{UBIQUITIN}\r\n"),
    ],
)
def test_every_form_of_a_sheet_gives_the_same_target(write: Callable[..., Path], name: str, text: str) -> None:
    (target,) = read(write(text, name))
    assert (target.id, sequences(target)) == ("u", [UBIQUITIN])


def test_a_multi_record_fasta_is_a_sheet_whose_headers_name_the_targets(write: Callable[..., Path]) -> None:
    path = write(
        f">sp|P0CG48|UBC_HUMAN Ubiquitin\n{UBIQUITIN}\n>1UBI_1|Chain A|UBIQUITIN\n{UBIQUITIN}\n"
        f">dimer x\n{UBIQUITIN}:\n{LYSOZYME}\n",
        "s.fa",
    )
    targets = read(path)
    assert [target.id for target in targets] == ["P0CG48", "1UBI_1", "dimer"]
    assert [target.row for target in targets] == [1, 3, 5]
    assert sequences(targets[2]) == [UBIQUITIN, LYSOZYME]


@pytest.mark.parametrize("header", ["id,fasta", "sequence,fasta"])
def test_both_of_nf_core_proteinfolds_sheets_are_read(write: Callable[..., Path], header: str) -> None:
    write(f">a\n{LYSOZYME}\n>b\n{UBIQUITIN}\n", "fasta/complex.fasta")
    (target,) = read(write(f"{header}\nT1024,fasta/complex.fasta\n", "samplesheet.csv"))
    assert target.id == "T1024"
    assert sequences(target) == [LYSOZYME, UBIQUITIN]


def test_one_number_of_copies_holds_for_all_chains_and_copies_stay_side_by_side(write: Callable[..., Path]) -> None:
    (target,) = read(write(f"id\tsequence\tcopies\nt\t{UBIQUITIN}:{LYSOZYME[:30]}\t2\n"))
    assert sequences(target) == [UBIQUITIN, UBIQUITIN, LYSOZYME[:30], LYSOZYME[:30]]


def test_a_target_is_accepted_if_one_of_its_engines_takes_it(write: Callable[..., Path]) -> None:
    (target,) = read(write(f"id\tsequence\tengines\nt\t{LYSOZYME}:{UBIQUITIN}\tesmfold template\n"))
    assert target.engines == ("esmfold", "template")
    assert refusal(REGISTRY["esmfold"].limits, target.chains) == "takes at most 1 chains, the target has 2"
    assert refusal(REGISTRY["template"].limits, target.chains) is None


def test_different_msas_of_equal_chains_are_for_engines_that_read_one_for_each_copy(write: Callable[..., Path]) -> None:
    path = write(
        f"id\tsequence\tcopies\tmsa\nt\t{UBIQUITIN}:{LYSOZYME}:{UBIQUITIN}\t\ta.a3m::b.a3m\n"
        f"searched\t{UBIQUITIN}:{UBIQUITIN}\t\t:b.a3m\nsame\t{UBIQUITIN}:{UBIQUITIN}\t2\tb.a3m:b.a3m\n"
    )
    able = ("template", "esmfold", "rosettafold", "openfold")
    unable = ("alphafold2", "boltz", "boltz2")
    different, searched, same = read_targets([path], engines=[*able, *unable], seed=0, check_files=False)
    for target, refusing in ((different, unable), (searched, unable), (same, ())):
        assert {name for name in target.engines if refusal(ENGINES[name].limits, target.chains)} == set(refusing)
    with pytest.raises(FaultsError) as caught:
        read_targets([path], engines=["boltz"], seed=0, check_files=False)
    first, second = caught.value.faults
    assert ":2: msa: no chosen engine can predict the target: boltz reads one MSA for equal chains, chains" in first
    assert "chains 1 and 3 have different ones; name one file for equal chains, or choose an engine that" in first
    assert "template, esmfold, rosettafold, openfold" in first
    assert ":3: msa: " in second


def test_all_faults_of_all_sheets_come_at_once_in_their_order(write: Callable[..., Path]) -> None:
    first = write(f"id\tsequence\tseed\tcopies\na b\t{UBIQUITIN}J\t-1\t0\nok\t{UBIQUITIN}\t\t\n\t\t1.5\t\n", "one.tsv")
    second = write(f"id,sequence\nOK,{UBIQUITIN}\nok,{UBIQUITIN}\n", "two.csv")
    assert faults(first, second) == [
        "one.tsv:2: id: 'a b' cannot name a folder (letters, digits, '.', '_' and '-', a letter or digit first, "
        "at most 100); write 'a_b'",
        "one.tsv:2: seed: '-1' is not a whole number from 0 to 2147483647; correct it or leave it empty",
        "one.tsv:2: copies: '0' is not a positive number; write 2, or 2:1 for the chains one by one",
        "one.tsv:4: id: is empty; give the target a name",
        "one.tsv:4: seed: '1.5' is not a whole number from 0 to 2147483647; correct it or leave it empty",
        "one.tsv:4: sequence: is empty; write the protein in one-letter codes, its chains joined by ':'",
        "two.csv:2: id: 'OK' differs only in case from 'ok' in one.tsv:3; give every target a name of its own",
        "two.csv:3: id: 'ok' stands already in one.tsv:3; give every target a name of its own",
    ]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a/b", "write 'a_b'"),
        ("..", "write 'target_2'"),
        ("-x", "write 'x'"),
        ("Größe 1", "write 'Groe_1'"),
        ("x" * 101, f"write '{'x' * 100}'"),
        ("Report", "write 'Report_1'"),
        ("summary.tsv", "write 'summary.tsv_1'"),
    ],
)
def test_an_unsafe_id_comes_with_a_safe_one(write: Callable[..., Path], text: str, expected: str) -> None:
    (fault,) = faults(write(f"id\tsequence\n{text}\t{UBIQUITIN}\n"))
    assert fault.startswith("sheet.tsv:2: id: ")
    assert fault.endswith(expected)


@pytest.mark.parametrize(
    ("sequence", "expected"),
    [
        (UBIQUITIN[:10] + "-" + UBIQUITIN, "'-' at position 11 is not an amino acid; take out the gaps"),
        (f"{LYSOZYME}:{UBIQUITIN[:9]}1", "'1' at position 10 of chain 2 is not an amino acid; write one letter"),
        (f"{UBIQUITIN}*{UBIQUITIN}", "'*' at position 77 is not an amino acid; it marks a stop codon"),
        (f"{UBIQUITIN}/{UBIQUITIN}", "'/' at position 77 is not an amino acid; join chains by ':'"),
        (f"{UBIQUITIN}É", "'É' at position 77 is not an amino acid"),
        (f"{UBIQUITIN}B", "'B' at position 77 is accepted by no chosen engine; replace it by one of the 20"),
        ("ATGGCCATTGTAATGGGCCGCTGA", "the sequence looks like DNA; translate it"),
        (f"{UBIQUITIN}:AUGGCCAUUGUAAUGGGCCGCUGA", "chain 2 looks like RNA; translate it"),
        (f"{UBIQUITIN}::{UBIQUITIN}", "chain 2 holds no residue; "),
        ("*", "holds no residue; "),
        ("GAGAGAGAGAGAGAGAGA", "template takes at least 20 residues, the target has 18; "),
        (UBIQUITIN * 4, "template takes at most 300 residues, the target has 304; "),
        (":".join([UBIQUITIN] * 5), "the target has 5 chains, which no chosen engine takes (at most 4 (template)); "),
    ],
)
def test_a_sequence_that_cannot_be_predicted_is_named_with_the_place(
    write: Callable[..., Path], sequence: str, expected: str
) -> None:
    (fault,) = faults(write(f"id\tsequence\nt\t{sequence}\n"))
    assert fault.startswith("sheet.tsv:2: sequence: ")
    assert expected in fault


def test_a_protein_of_few_kinds_of_residues_does_not_pass_for_dna(write: Callable[..., Path]) -> None:
    (target,) = read(write(f"id\tsequence\nt\t{'GA' * 15}\n"))
    assert target.length == 30


def test_a_target_that_no_engine_takes_names_the_reason_of_each(write: Callable[..., Path]) -> None:
    (fault,) = faults(write(f"id\tsequence\tengines\nt\t{UBIQUITIN * 4}\ttemplate,esmfold\n"))
    assert "template takes at most 300 residues, the target has 304" in fault
    assert "esmfold takes at most 200 residues, the target has 304" in fault
    assert fault.endswith("; change the target: no engine takes it")


@pytest.mark.parametrize(
    ("sequence", "engine", "expected"),
    [
        (
            UBIQUITIN * 3,
            "esmfold",
            "no chosen engine can predict the target: esmfold takes at most 200 residues, the target has 228; change "
            "the target, or choose an engine that takes it (template)",
        ),
        (
            f"{UBIQUITIN}:{UBIQUITIN}",
            "esmfold",
            "the target has 2 chains, which no chosen engine takes (at most 1 (esmfold)); predict fewer chains, or "
            "choose an engine that takes it (template)",
        ),
        (
            f"{UBIQUITIN}X",
            "template",
            "'X' at position 77 is accepted by no chosen engine; replace it by one of the 20 amino acids, or choose an "
            "engine that takes it (esmfold)",
        ),
        (
            f"{UBIQUITIN}B",
            "template,esmfold",
            "'B' at position 77 is accepted by no chosen engine; write X for an unknown residue: no engine takes it",
        ),
    ],
)
def test_a_refusal_names_the_engines_that_take_the_target(
    write: Callable[..., Path], sequence: str, engine: str, expected: str
) -> None:
    (fault,) = faults(write(f'id,sequence,engines\nt,{sequence},"{engine}"\n', "s.csv"))
    assert fault == f"s.csv:2: sequence: {expected}"


def test_a_vast_number_of_copies_is_refused_before_it_is_written_out(write: Callable[..., Path]) -> None:
    (fault,) = faults(write(f"id\tsequence\tcopies\nt\t{UBIQUITIN}\t999999999\n"))
    assert fault.startswith("sheet.tsv:2: copies: the target has 999999999 chains")
    assert fault.endswith("predict fewer copies: no engine takes it")


@pytest.mark.parametrize(
    ("column", "value", "expected"),
    [
        ("engines", "esmfolt", "there is no engine 'esmfolt'; did you mean esmfold?"),
        ("engines", "chai", "there is no engine 'chai'; choose from template, esmfold"),
        ("engines", ",", "names no engine; choose from esmfold, template"),
        ("seed", "2147483648", "'2147483648' is not a whole number from 0 to 2147483647; "),
        ("seed", "٣", "is not a whole number"),
        ("copies", "2:1", "has 2 numbers for 1 chain; give one for all or one for each"),
        ("copies", "two", "'two' is not a positive number; "),
        ("msa", "a.a3m:b.a3m", "names 2 MSAs for 1 distinct chain; "),
        ("msa", "a.a3m", "a.a3m does not exist; give its path relative to the folder of the sheet"),
        ("template", "https://example.org/x.cif", "is an address; download the file and give its path"),
        ("reference", ".", "is not a file; "),
    ],
)
def test_a_wrong_value_of_an_optional_column_is_named(
    write: Callable[..., Path], column: str, value: str, expected: str
) -> None:
    (fault,) = faults(write(f"id\tsequence\t{column}\nt\t{UBIQUITIN}\t{value}\n"))
    assert fault.startswith(f"sheet.tsv:2: {column}: ")
    assert expected in fault


def test_a_worker_without_the_named_files_can_parse_the_sheet(write: Callable[..., Path]) -> None:
    path = write(f"id\tsequence\ttemplate\nt\t{UBIQUITIN}\tt.cif\n")
    assert len(faults(path)) == 1
    assert read(path, check_files=False)[0].template == path.parent / "t.cif"


def test_faults_of_a_fasta_file_are_faults_of_its_row(write: Callable[..., Path]) -> None:
    write(f">a\n{UBIQUITIN}\n>b\nMK1\n", "bad.fasta")
    write("\n", "empty.fasta")
    path = write(f"id\tsequence\tfasta\na\t\tbad.fasta\nb\t\tempty.fasta\nc\t\tnone.fasta\nd\t{UBIQUITIN}\tbad.fasta\n")
    found = faults(path)
    assert [fault.split(": ")[:2] for fault in found] == [[f"sheet.tsv:{row}", "fasta"] for row in (2, 3, 4, 5)]
    assert "'1' at position 3 of chain 2 is not an amino acid" in found[0]
    assert "empty.fasta holds no sequence" in found[1]
    assert "none.fasta: there is no such file; " in found[2]
    assert "the row has a sequence too" in found[3]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", "sheet.tsv:1: the sheet is empty; "),
        ("# only a note\n\n", "sheet.tsv:1: the sheet is empty; "),
        ("id\tsequence\n", "sheet.tsv:1: the sheet has a header but no targets; "),
        ("name\tsequence\nx\tMK\n", "sheet.tsv:1: id: there is no such column; "),
        ("id\tcopies\nx\t1\n", "sheet.tsv:1: sequence: there is neither this column nor `fasta`; "),
        (f"id\tsequence\tsequence\nx\t{UBIQUITIN}\t\n", "sheet.tsv:1: sequence: stands twice in the header; "),
        (
            f"id\tsequence\tcopys\nx\t{UBIQUITIN}\t2\n",
            "sheet.tsv:1: copys: is not a column of a sheet; did you mean 'cop",
        ),
        (f"id\tsequence\tdate\nx\t{UBIQUITIN}\t2\n", "sheet.tsv:1: date: is not a column of a sheet; take it out; "),
        (f"id\tsequence\nx\t{UBIQUITIN}\ty\n", "sheet.tsv:2: has 3 fields, the header has 2; take out the extra tabs"),
        ("id\tsequence\n\nx\n", "sheet.tsv:3: has 1 field, the header has 2; separate fields by tabs"),
        (f'id\tsequence\n"x\t{UBIQUITIN}\n', "sheet.tsv:2: unexpected end of data; close every quoted field"),
        (f"id\tsequence\nx\t{UBIQUITIN}\n".encode("utf-16"), "sheet.tsv:1: is UTF-16 text; save it as UTF-8"),
        (b"id\tsequence\nx\t\xff\n", "sheet.tsv:1: line 2 is not UTF-8 text; "),
        (b"PK\x03\x04rest", "sheet.tsv:1: is a compressed file or a spreadsheet; "),
        (f"{UBIQUITIN}\n>x\n{UBIQUITIN}\n", "sheet.tsv:1: id: there is no such column; "),
    ],
)
def test_a_sheet_of_broken_form_is_named_with_the_line(
    write: Callable[..., Path], text: str | bytes, expected: str
) -> None:
    assert any(fault.startswith(expected) for fault in faults(write(text)))


def test_fields_of_a_csv_row_that_are_too_many_suggest_quotes(write: Callable[..., Path]) -> None:
    (fault,) = faults(write(f"id,sequence,engines\nx,{UBIQUITIN},template,esmfold\n", "s.csv"))
    assert fault == 's.csv:2: has 4 fields, the header has 3; put a field that holds commas in quotes, "like this"'


def test_a_fasta_record_without_a_name_is_a_fault(write: Callable[..., Path]) -> None:
    (fault,) = faults(write(f">\n{UBIQUITIN}\n>x\n{UBIQUITIN}\n", "s.fasta"))
    assert fault.startswith("s.fasta:1: id: the record has no name; ")


def test_a_sheet_that_is_missing_a_folder_or_given_twice_is_a_fault(write: Callable[..., Path], tmp_path: Path) -> None:
    assert faults(tmp_path / "no.tsv") == ["no.tsv:1: there is no such file; correct the path"]
    assert "is a folder; give a file" in faults(tmp_path)[0]
    path = write(f"id\tsequence\nx\t{UBIQUITIN}\n")
    assert faults(path, path)[0] == "sheet.tsv:1: the sheet is given twice; name it once in `samples`"


def test_no_sheet_and_an_unknown_default_engine_are_faults_of_the_configuration(write: Callable[..., Path]) -> None:
    with pytest.raises(FaultsError, match="config: samples: names no sheet"):
        read()
    with pytest.raises(FaultsError, match="config: engines: there is no engine 'chai'; choose from template"):
        read_targets([write("id\tsequence\n")], engines=["chai"], seed=0, registry=REGISTRY)
