import datetime
import itertools
import json
import re
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml

from snakefold.config import Config, Section, load_config, schema, write_schema
from snakefold.errors import FaultsError

FOLDER = Path(__file__).parents[2] / "config"


def faults(**settings: Any) -> list[str]:
    with pytest.raises(FaultsError) as caught:
        load_config(settings)
    for fault in caught.value.faults:
        assert "\n" not in fault
        assert "; " in fault, f"no remedy in {fault!r}"
    return list(caught.value.faults)


def keys(section: Section) -> list[str]:
    """All keys of a configuration, dotted, in order."""
    found = []
    for name in type(section).model_fields:
        value = getattr(section, name)
        found += [f"{name}.{key}" for key in keys(value)] if isinstance(value, Section) else [name]
    return found


def test_the_shipped_file_names_every_key_with_its_default_in_the_order_of_the_models() -> None:
    shipped = yaml.safe_load((FOLDER / "config.yaml").read_text())
    assert load_config(shipped) == Config()
    named = [
        name
        for section, value in shipped.items()
        for name in ([f"{section}.{key}" for key in value] if isinstance(value, dict) else [section])
    ]
    assert named == keys(Config())


def test_every_key_of_the_shipped_file_has_a_comment_above_it() -> None:
    lines = (FOLDER / "config.yaml").read_text().split("\n")
    for above, line in itertools.pairwise(lines):
        if re.match(r" *[a-z_0-9]+: *\S", line):
            assert above.lstrip().startswith("#"), f"no comment above {line!r}"


def test_the_shipped_schema_is_the_one_of_the_models_and_accepts_the_shipped_file(tmp_path: Path) -> None:
    shipped = FOLDER / "schema" / "config.schema.json"
    write_schema(tmp_path / "schema.json")
    assert (tmp_path / "schema.json").read_text() == shipped.read_text()
    jsonschema.Draft202012Validator.check_schema(schema())
    jsonschema.validate(yaml.safe_load((FOLDER / "config.yaml").read_text()), json.loads(shipped.read_text()))


@pytest.mark.parametrize("wrong", [{"serch": {}}, {"search": {"iterations": 0}}, {"samples": 3}, {"seed": -1}])
def test_the_schema_refuses_what_the_models_refuse(wrong: dict[str, Any]) -> None:
    assert faults(**wrong)
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(wrong, schema())


def test_a_section_may_be_left_out_empty_or_given_in_part() -> None:
    config = load_config({"relax": None, "search": {"iterations": 3}})
    assert config.relax == Config().relax
    assert config.search.iterations == 3
    assert config.search.evalue == Config().search.evalue


def test_one_path_stands_for_a_list_of_one() -> None:
    assert load_config({"samples": "a.tsv", "engines": "template"}).samples == ("a.tsv",)
    assert load_config({"samples": ["a.tsv", "b.fa"]}).samples == ("a.tsv", "b.fa")


def test_numbers_that_yaml_reads_as_text_are_numbers() -> None:
    # YAML 1.1 wants a dot in the mantissa, so PyYAML makes "1e-4" of 1e-4.
    mapping = yaml.safe_load("search: {evalue: 1e-4}")
    assert mapping["search"]["evalue"] == "1e-4"
    assert load_config(mapping).search.evalue == 1e-4


def test_a_date_may_stand_with_and_without_quotes() -> None:
    for text in ("2020-05-14", '"2020-05-14"'):
        config = load_config(yaml.safe_load(f"templates: {{max_template_date: {text}}}"))
        assert config.templates.max_template_date == datetime.date(2020, 5, 14)


def test_parameters_are_plain_json_values() -> None:
    config = Config()
    assert config.templates.parameters()["max_template_date"] == "2026-11-01"
    assert json.loads(json.dumps(config.parameters())) == config.parameters()
    assert config.parameters_of_engine("template") == config.template.parameters()
    assert config.parameters_of_engine("esmfold") == config.esmfold.parameters()
    assert config.parameters_of_engine("boltz") == config.boltz.parameters()
    assert config.parameters_of_engine("omegafold")["cycles"] == 10
    assert config.parameters_of_engine("rosettafold")["max_extra_msa"] == 2048
    assert config.parameters_of_engine("boltz2") == config.boltz.parameters() | {"step_scale": 1.5}
    assert config.parameters_of_engine("alphafold2")["models"] == [1, 2, 3, 4, 5]
    assert config.parameters_of_engine("an engine without a section") == {}


def test_a_configuration_cannot_be_changed() -> None:
    with pytest.raises(ValueError, match="frozen"):
        Config().seed = 3  # pyright: ignore[reportAttributeAccessIssue]


def test_all_faults_come_at_once() -> None:
    assert faults(seed="x", search={"iterations": 0}, templtes={}) == [
        'config: seed: must be a whole number, but is "x"; correct it or take the key out (default: 0)',
        "config: search.iterations: must be at least 1, but is 0; correct it or take the key out (default: 1)",
        "config: templtes: there is no such key; did you mean templates?",
    ]


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({"samples": []}, "config: samples: must be a list that is not empty, but is []"),
        ({"samples": ["a", 3]}, "config: samples.2: must be text; "),
        ({"results": None}, "config: results: must be text, but is null; "),
        ({"store": ""}, 'config: store: must be text that is not empty, but is ""; '),
        ({"reuse": "perhaps"}, 'config: reuse: must be true or false, but is "perhaps"; '),
        ({"seed": 2**31}, "config: seed: must be at most 2147483647, but is 2147483648; "),
        ({"engines": ["templat"]}, "config: engines: there is no engine 'templat'; did you mean template?"),
        ({"plan": 5}, "config: plan: must be a section with keys of its own; "),
        ({"plan": {"minutes": 0}}, "config: plan.minutes: must be greater than 0, but is 0; "),
        ({"omegafold": {"model": 3}}, "config: omegafold.model: "),
        ({"rosettafold": {"neighbours": -2}}, "config: rosettafold.neighbours: must be at least -1"),
        ({"alphafold2": {"models": [1, 6]}}, "config: alphafold2.models.2: must be at most 5; "),
        ({"alphafold2": {"models": [1, 1]}}, "config: alphafold2.models: must name each model once, but is "),
        ({"search": {"evalue": ".inf"}}, "config: search.evalue: must be a number"),
        ({"search": {"evalues": 1}}, "config: search.evalues: there is no such key; did you mean evalue?"),
        ({"search": {"zzz": 1}}, "config: search.zzz: there is no such key; choose from iterations, evalue, "),
        ({"relax": {"platform": "GPU"}}, "config: relax.platform: must be one of 'auto', 'CPU', 'CUDA', "),
        ({"templates": {"max_template_date": "soon"}}, "config: templates.max_template_date: must be a date such as "),
        (
            {"templates": {"min_identity": 0.9, "max_identity": 0.3}},
            "config: templates: min_identity (0.9) exceeds max_identity (0.3); ",
        ),
    ],
)
def test_a_wrong_setting_is_named_with_a_remedy(settings: dict[str, Any], expected: str) -> None:
    (fault,) = faults(**settings)
    assert fault.startswith(expected)
