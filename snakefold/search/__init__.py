"""Homologues (MSAs) and structural templates of a chain."""

MSA_VERSION = 1
"""Version of what `search_msas` and `import_msa` write; raise it whenever their results change."""

TEMPLATES_VERSION = 1
"""Version of what `search_templates` writes; raise it whenever its results change."""
