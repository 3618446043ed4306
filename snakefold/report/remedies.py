"""What a user can do about a prediction that was skipped or failed."""

from collections.abc import Mapping

RETRY = "then withdraw the failures with `python -m snakefold retry` and run again; the rest comes from the store."

# By the `kind` of status.json. A kind that is not here gets the general advice of its status.
_BY_KIND: Mapping[str, str] = {
    "no_template": (
        "No structure in the template library is close enough. Give one of your own in the sheet's `template` column, "
        "take a larger database preset, or choose an engine that needs no template."
    ),
    "no_complex_template": (
        "No structure in the template library holds all chains of this complex together. Give one of your own in the "
        "sheet's `template` column, or predict the chains as targets of their own."
    ),
    "too_little_template": (
        "The templates cover too little of the target to call the rest a prediction. Give a better one in the sheet's "
        "`template` column, shorten the target to the domain that is covered, or choose an engine that needs no "
        "template."
    ),
    "bad_msa": f"Mend the alignment that the sheet's `msa` column names, or leave the cell empty to search; {RETRY}",
    "bad_parameter": f"Mend the engine's parameters in the config, {RETRY}",
    "bad_sequence": f"Mend the sequence in the sheet, {RETRY}",
    "search_failed": (
        "The search itself broke down. See the log lines; if the database is damaged, delete its folder, so that it is "
        f"fetched and checked again, {RETRY}"
    ),
    "too_long": (
        "The target is longer than the engine takes. Choose an engine for longer targets, or split the target into "
        "domains, one row of the sheet each."
    ),
    "too_short": "The target is shorter than the engine takes. Choose another engine, or give a longer construct.",
    "bad_template": (
        "The template's coordinates could not be used. Look at the file (missing backbone, wrong chain, another "
        f"sequence), give another one in the sheet's `template` column, {RETRY}"
    ),
    "out_of_memory": f"Give the step more memory or a larger GPU, or choose an engine that needs less; {RETRY}",
    "unreadable_result": (
        "The folder of the prediction is incomplete or damaged. Delete it and run again: `score` writes it anew from "
        "the store."
    ),
}

_BY_STATUS: Mapping[str, str] = {
    "skipped": "The engine does not apply to this target. Choose another one in the sheet's `engines` column.",
    "failed": f"The last log lines mostly name the cause. Mend it, {RETRY}",
}


def remedy_for(status: str, kind: str | None) -> str:
    """One or two sentences on what to do about a prediction that ended as `status` with `kind`.

    Words between backticks are commands, columns or file names.
    """
    return _BY_KIND.get(kind or "") or _BY_STATUS[status]
