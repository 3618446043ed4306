"""Finding homologues (MSA) and structural templates of chains."""
