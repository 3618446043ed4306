"""What is shown of a job's log."""

from snakemake_executor_plugin_aws_batch_fleet.logs import without_remarks


def test_the_tools_own_words_remain() -> None:
    log = [
        "Building DAG of jobs...",
        "Using shell: /usr/bin/bash",
        "Select jobs to execute...",
        "Execute 1 jobs...",
        "WorkflowError:",
        "the tool quotes Building DAG of jobs...",
        "Command 'x' returned non-zero exit status 3.",
        "Shutting down, this might take some time.",
        "Exiting because a job execution failed. Look above for error messages",
        "Storing output in storage.",
        "Elapsed time: 0:00:00.138596",
        "WorkflowError:",
        "At least one job did not complete successfully.",
    ]
    assert without_remarks(log) == [log[4], log[5], log[6]]


def test_an_error_of_the_workflow_itself_remains() -> None:
    log = ["WorkflowError:", "S3: there is no bucket"]
    assert without_remarks(log) == log
