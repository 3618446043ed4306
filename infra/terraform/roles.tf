# Who may do what; README.md has the table, and tests/infra/test_apply.py tries it.

locals {
  objects = "${aws_s3_bucket.this.arn}/"
  places = {
    runs      = "${local.objects}runs/*"
    store     = "${local.objects}${var.store_prefix}/*"
    databases = "${local.objects}${var.databases_prefix}/*"
  }

  read_objects  = ["s3:GetObject", "s3:ListMultipartUploadParts"]
  write_objects = ["s3:PutObject", "s3:DeleteObject", "s3:AbortMultipartUpload"]
  list_bucket   = ["s3:ListBucket", "s3:ListBucketMultipartUploads", "s3:GetBucketLocation"]
}

data "aws_iam_policy_document" "trust_machines" {
  statement {
    actions = ["sts:AssumeRole"]
    principals {
      type        = "Service"
      identifiers = ["ec2.amazonaws.com"]
    }
  }
}

data "aws_iam_policy_document" "trust_jobs" {
  statement {
    actions = ["sts:AssumeRole"]
    principals {
      type        = "Service"
      identifiers = ["ecs-tasks.amazonaws.com"]
    }
    # Not for tasks of somebody else's account that was told this role's name.
    condition {
      test     = "StringEquals"
      variable = "aws:SourceAccount"
      values   = [local.account]
    }
  }
}

# ---------------------------------------------------------------- machines

# Containers of AWS Batch on EC2 use the machine's network and can take its role's keys from the metadata service, so
# that role can do nothing with S3: it joins a cluster, pulls images and writes logs.
resource "aws_iam_role" "instance" {
  name               = "${var.name}-instance"
  description        = "Machines of AWS Batch: join the cluster, pull images, write logs"
  assume_role_policy = data.aws_iam_policy_document.trust_machines.json
}

resource "aws_iam_role_policy_attachment" "instance" {
  role       = aws_iam_role.instance.name
  policy_arn = "arn:${local.partition}:iam::aws:policy/service-role/AmazonEC2ContainerServiceforEC2Role"
}

resource "aws_iam_instance_profile" "instance" {
  name = "${var.name}-instance"
  role = aws_iam_role.instance.name
}

# ---------------------------------------------------------------- execution: what ECS does for a job

data "aws_iam_policy_document" "execution" {
  statement {
    sid       = "LogInToEcr"
    actions   = ["ecr:GetAuthorizationToken"]
    resources = ["*"]
  }
  statement {
    sid       = "PullImages"
    actions   = ["ecr:BatchCheckLayerAvailability", "ecr:BatchGetImage", "ecr:GetDownloadUrlForLayer"]
    resources = [for repository in aws_ecr_repository.this : repository.arn]
  }
  statement {
    sid       = "WriteLogs"
    actions   = ["logs:CreateLogStream", "logs:PutLogEvents"]
    resources = ["${aws_cloudwatch_log_group.jobs.arn}:*"]
  }
}

resource "aws_iam_role" "execution" {
  name               = "${var.name}-execution"
  description        = "ECS on behalf of jobs: pull their images, write their logs"
  assume_role_policy = data.aws_iam_policy_document.trust_jobs.json
}

resource "aws_iam_role_policy" "execution" {
  name   = "execution"
  role   = aws_iam_role.execution.id
  policy = data.aws_iam_policy_document.execution.json
}

# ---------------------------------------------------------------- jobs

data "aws_iam_policy_document" "job" {
  # Of the whole bucket, without a condition on the prefix: without this right S3 says "forbidden" of an object that
  # does not exist, and asking for an object has no prefix that a condition could look at.
  statement {
    sid       = "List"
    actions   = local.list_bucket
    resources = [aws_s3_bucket.this.arn]
  }
  statement {
    sid       = "Read"
    actions   = local.read_objects
    resources = values(local.places)
  }
  statement {
    sid       = "Write"
    actions   = local.write_objects
    resources = concat([local.places.runs, local.places.store], var.jobs_may_publish_databases ? [local.places.databases] : [])
  }
}

resource "aws_iam_role" "job" {
  name               = "${var.name}-job"
  description        = "Jobs of runs: read databases, read and write runs and the store"
  assume_role_policy = data.aws_iam_policy_document.trust_jobs.json
}

resource "aws_iam_role_policy" "job" {
  name   = "job"
  role   = aws_iam_role.job.id
  policy = data.aws_iam_policy_document.job.json
}

# ---------------------------------------------------------------- databases

data "aws_iam_policy_document" "database" {
  statement {
    sid       = "List"
    actions   = local.list_bucket
    resources = [aws_s3_bucket.this.arn]
  }
  statement {
    # Runs: its sources are sent there.
    sid       = "Read"
    actions   = local.read_objects
    resources = [local.places.databases, local.places.runs]
  }
  statement {
    sid       = "Publish"
    actions   = local.write_objects
    resources = [local.places.databases]
  }
}

resource "aws_iam_role" "database" {
  name               = "${var.name}-database"
  description        = "Jobs of `snakefold databases sync`: publish databases"
  assume_role_policy = data.aws_iam_policy_document.trust_jobs.json
}

resource "aws_iam_role_policy" "database" {
  name   = "database"
  role   = aws_iam_role.database.id
  policy = data.aws_iam_policy_document.database.json
}

# ---------------------------------------------------------------- controller and submitter

# What `snakemake --profile aws-batch` needs: the executor's README lists it. Of a launched run it is a job that does it,
# with the controller's role; else it is you, with the submitter's policy.
data "aws_iam_policy_document" "controller" {
  statement {
    sid       = "Submit"
    actions   = ["batch:SubmitJob"]
    resources = concat([for queue in aws_batch_job_queue.this : queue.arn], [local.job_definitions])
  }
  statement {
    sid       = "Define"
    actions   = ["batch:RegisterJobDefinition", "batch:TagResource"]
    resources = [local.job_definitions]
  }
  # Jobs have no names in ARNs: those of this account in this region.
  statement {
    sid       = "End"
    actions   = ["batch:TerminateJob", "batch:TagResource"]
    resources = ["arn:${local.partition}:batch:${local.here}:job/*"]
  }
  statement {
    sid = "Look"
    actions = [
      "batch:DescribeComputeEnvironments",
      "batch:DescribeJobDefinitions",
      "batch:DescribeJobQueues",
      "batch:DescribeJobs",
      "batch:ListJobs",
    ]
    resources = ["*"]
  }
  # The type of machine that a job had, for the ledger. AWS Batch names its clusters itself.
  statement {
    sid       = "LookAtMachines"
    actions   = ["ecs:DescribeContainerInstances"]
    resources = ["arn:${local.partition}:ecs:${local.here}:container-instance/*"]
  }
  statement {
    sid       = "GiveRolesToJobs"
    actions   = ["iam:PassRole"]
    resources = [aws_iam_role.job.arn, aws_iam_role.execution.arn]
    condition {
      test     = "StringEquals"
      variable = "iam:PassedToService"
      values   = ["ecs-tasks.amazonaws.com"]
    }
  }
  statement {
    sid       = "ReadLogs"
    actions   = ["logs:GetLogEvents"]
    resources = ["${aws_cloudwatch_log_group.jobs.arn}:*"]
  }
  statement {
    sid       = "HearEvents"
    actions   = ["sqs:ReceiveMessage", "sqs:DeleteMessage", "sqs:ChangeMessageVisibility"]
    resources = [aws_sqs_queue.events.arn]
  }
  statement {
    sid       = "ListBucket"
    actions   = local.list_bucket
    resources = [aws_s3_bucket.this.arn]
  }
  statement {
    sid       = "ReadBucket"
    actions   = local.read_objects
    resources = values(local.places)
  }
  statement {
    sid       = "WriteBucket"
    actions   = local.write_objects
    resources = [local.places.runs, local.places.store]
  }
}

resource "aws_iam_role" "controller" {
  name               = "${var.name}-controller"
  description        = "The job that `snakefold launch` starts: submits and follows the jobs of a run"
  assume_role_policy = data.aws_iam_policy_document.trust_jobs.json
}

resource "aws_iam_role_policy" "controller" {
  name   = "controller"
  role   = aws_iam_role.controller.id
  policy = data.aws_iam_policy_document.controller.json
}

# For people: attach it to their role or permission set. Beside what a controller does, it launches controllers, has
# databases published, and asks for what `snakefold doctor` looks at.
data "aws_iam_policy_document" "submitter" {
  source_policy_documents = [data.aws_iam_policy_document.controller.json]

  statement {
    sid       = "GiveRolesToControllers"
    actions   = ["iam:PassRole"]
    resources = [aws_iam_role.controller.arn, aws_iam_role.database.arn]
    condition {
      test     = "StringEquals"
      variable = "iam:PassedToService"
      values   = ["ecs-tasks.amazonaws.com"]
    }
  }
  # What follows is for `snakefold doctor`.
  statement {
    sid       = "LookAtImages"
    actions   = ["ecr:BatchGetImage", "ecr:DescribeImages"]
    resources = [for repository in aws_ecr_repository.this : repository.arn]
  }
  statement {
    sid       = "LookAtBucket"
    actions   = ["s3:GetBucketPublicAccessBlock"]
    resources = [aws_s3_bucket.this.arn]
  }
  statement {
    sid       = "LookAtEvents"
    actions   = ["sqs:GetQueueAttributes"]
    resources = [aws_sqs_queue.events.arn]
  }
  statement {
    sid       = "LookAtRoles"
    actions   = ["iam:GetRole"]
    resources = [for role in [aws_iam_role.job, aws_iam_role.execution, aws_iam_role.controller, aws_iam_role.database] : role.arn]
  }
  statement {
    sid       = "LookAtLogGroups"
    actions   = ["logs:DescribeLogGroups"]
    resources = ["arn:${local.partition}:logs:${local.here}:log-group:*"]
  }
  statement {
    sid       = "LookAtQuotas"
    actions   = ["ec2:DescribeInstanceTypes", "servicequotas:GetAWSDefaultServiceQuota", "servicequotas:GetServiceQuota"]
    resources = ["*"]
  }
}

resource "aws_iam_policy" "submitter" {
  name        = "${var.name}-submitter"
  description = "Runs snakefold with the profile aws-batch"
  policy      = data.aws_iam_policy_document.submitter.json
}
