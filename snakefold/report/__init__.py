"""The table and the HTML report of a run."""
