# Glue between the rules and the package. Parsing reads the config, the sheet and the files that the sheet names,
# and nothing else: a worker parses this again and must get the same jobs.

from snakefold import workflow as snakefold_workflow

FOLDING = snakefold_workflow.prepare(workflow, config)
