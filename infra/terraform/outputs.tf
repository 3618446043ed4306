locals {
  # Megabytes (10**6 bytes) that jobs can have: the kernel and ECS keep some, more of it (in per cent) on small machines.
  memory_share = 0.92
  mb_per_mib   = 1.048576

  queues = [
    for name in sort(keys(local.machines)) : merge(
      {
        name           = aws_batch_job_queue.this[name].name
        vcpus          = data.aws_ec2_instance_type.largest[local.machines[name].largest].default_vcpus
        memory_mb      = floor(data.aws_ec2_instance_type.largest[local.machines[name].largest].memory_size * local.mb_per_mib * local.memory_share)
        gpus           = local.machines[name].gpu ? sum(data.aws_ec2_instance_type.largest[local.machines[name].largest].gpus[*].count) : 0
        gpu_memory_mb  = local.machines[name].gpu ? floor(min(data.aws_ec2_instance_type.largest[local.machines[name].largest].gpus[*].memory_size...) * local.mb_per_mib) : 0
        purchase       = local.machines[name].purchase
        price_per_hour = local.machines[name].price_per_hour
      },
      # Refused by queues that have no fair-share policy.
      var.share_identifier == null ? {} : { share_identifier = var.share_identifier },
    )
  ]
}

output "fleet" {
  description = "The fleet file (profiles/aws-batch/fleet.yaml): `make aws-config` writes it. Key for key what the executor accepts."
  value = {
    region              = var.region
    bucket              = aws_s3_bucket.this.id
    job_role_arn        = aws_iam_role.job.arn
    execution_role_arn  = aws_iam_role.execution.arn
    controller_role_arn = aws_iam_role.controller.arn
    database_role_arn   = aws_iam_role.database.arn
    log_group           = aws_cloudwatch_log_group.jobs.name
    events_queue_url    = aws_sqs_queue.events.url
    tags                = local.tags
    mounts              = ["${local.databases_folder}:${local.databases_folder}"]
    images              = merge(local.pinned_images, var.images)
    queues              = local.queues
  }
}

output "repositories" {
  description = "Image name -> the ECR repository to push it to."
  value       = { for name, repository in aws_ecr_repository.this : name => repository.repository_url }
}

output "bucket" {
  description = "The bucket."
  value       = aws_s3_bucket.this.id
}

output "database_role_arn" {
  description = "Role of the jobs that publish databases."
  value       = aws_iam_role.database.arn
}

output "submitter_policy_arn" {
  description = "Managed policy for people who run snakefold."
  value       = aws_iam_policy.submitter.arn
}

output "submitter_policy_json" {
  description = "The same, for accounts whose permissions are written elsewhere (such as permission sets)."
  value       = data.aws_iam_policy_document.submitter.json
}

output "dashboard" {
  description = "Name of the CloudWatch dashboard; null without one."
  value       = one(aws_cloudwatch_dashboard.this[*].dashboard_name)
}

output "user_data" {
  description = "What machines of each kind run when they start; the tests run it."
  value       = local.user_data
}
