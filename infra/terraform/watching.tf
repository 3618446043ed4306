# ---------------------------------------------------------------- logs

resource "aws_cloudwatch_log_group" "jobs" {
  #checkov:skip=CKV_AWS_158:Encrypted with AWS's keys; logs of jobs hold no secrets, and a key of one's own costs money while idle.
  #checkov:skip=CKV_AWS_338:Results, receipts and reports keep what matters; a year of logs of a thousand jobs a day costs more than it tells.
  name              = "/aws/batch/${var.name}"
  retention_in_days = var.log_retention_days
}

# ---------------------------------------------------------------- state changes of jobs, for the executor

locals {
  # Named here, since the rule and the queue each need the other's name.
  rule_name   = "${var.name}-jobs"
  events_name = "${var.name}-events"
}

resource "aws_sqs_queue" "events" {
  name                    = local.events_name
  policy                  = data.aws_iam_policy_document.events.json
  sqs_managed_sse_enabled = true
  # The executor asks for all jobs every ten minutes: what is older tells nothing.
  message_retention_seconds = 3600
}

resource "aws_cloudwatch_event_rule" "jobs" {
  name        = local.rule_name
  description = "State changes of jobs in our queues"
  event_pattern = jsonencode({
    source      = ["aws.batch"]
    detail-type = ["Batch Job State Change"]
    detail      = { jobQueue = [{ prefix = "arn:${local.partition}:batch:${local.here}:job-queue/${var.name}-" }] }
  })
}

resource "aws_cloudwatch_event_target" "jobs" {
  rule      = aws_cloudwatch_event_rule.jobs.name
  target_id = "events"
  arn       = aws_sqs_queue.events.arn
}

data "aws_iam_policy_document" "events" {
  statement {
    actions   = ["sqs:SendMessage"]
    resources = ["arn:${local.partition}:sqs:${local.here}:${local.events_name}"]

    principals {
      type        = "Service"
      identifiers = ["events.amazonaws.com"]
    }

    condition {
      test     = "ArnEquals"
      variable = "aws:SourceArn"
      values   = ["arn:${local.partition}:events:${local.here}:rule/${local.rule_name}"]
    }
  }
}

# ---------------------------------------------------------------- money

# Counts what has the tag Project, once that is activated as a cost allocation tag (README, "Apply").
resource "aws_budgets_budget" "this" {
  name         = var.name
  budget_type  = "COST"
  limit_amount = tostring(var.monthly_budget_usd)
  limit_unit   = "USD"
  time_unit    = "MONTHLY"

  cost_filter {
    name = "TagKeyValue"
    # Not "$${...}", which is a dollar sign and braces.
    values = [format("user:Project$%s", var.name)]
  }

  dynamic "notification" {
    for_each = length(var.budget_emails) == 0 ? {} : { "50" = "ACTUAL", "80" = "ACTUAL", "100" = "FORECASTED" }
    content {
      comparison_operator        = "GREATER_THAN"
      threshold                  = tonumber(notification.key)
      threshold_type             = "PERCENTAGE"
      notification_type          = notification.value
      subscriber_email_addresses = var.budget_emails
    }
  }
}

# ---------------------------------------------------------------- dashboard

locals {
  # vCPUs in use by class, as EC2's quotas count them.
  usage = {
    "Spot"            = "Standard/Spot"
    "on demand"       = "Standard/OnDemand"
    "GPU (G) Spot"    = "G/Spot"
    "GPU (G)"         = "G/OnDemand"
    "GPU (P)"         = "P/OnDemand"
    "GPU (P) on Spot" = "P/Spot"
  }
}

resource "aws_cloudwatch_dashboard" "this" {
  count          = var.dashboard ? 1 : 0
  dashboard_name = var.name
  dashboard_body = jsonencode({
    widgets = [
      {
        type = "metric", x = 0, y = 0, width = 12, height = 6
        properties = {
          title = "vCPUs in use (whole account)", region = var.region, view = "timeSeries", stat = "Maximum", period = 300
          metrics = [
            for label, class in local.usage :
            ["AWS/Usage", "ResourceCount", "Type", "Resource", "Resource", "vCPU", "Service", "EC2", "Class", class, { label = label }]
          ]
        }
      },
      {
        type = "metric", x = 12, y = 0, width = 12, height = 6
        properties = {
          title   = "State changes of jobs", region = var.region, view = "timeSeries", stat = "Sum", period = 300
          metrics = [["AWS/Events", "MatchedEvents", "RuleName", aws_cloudwatch_event_rule.jobs.name]]
        }
      },
      {
        type = "metric", x = 0, y = 6, width = 12, height = 6
        properties = {
          title   = "Bytes in the bucket", region = var.region, view = "timeSeries", stat = "Average", period = 86400
          metrics = [["AWS/S3", "BucketSizeBytes", "BucketName", aws_s3_bucket.this.id, "StorageType", "StandardStorage"]]
        }
      },
      {
        type = "log", x = 12, y = 6, width = 12, height = 6
        properties = {
          title = "Last errors in jobs' logs", region = var.region, view = "table"
          query = "SOURCE '${aws_cloudwatch_log_group.jobs.name}' | fields @timestamp, @logStream, @message | filter @message like /(?i)error|killed|out of memory/ | sort @timestamp desc | limit 50"
        }
      },
    ]
  })
}
