locals {
  # Megabytes (10**6 bytes) that jobs can have: the kernel and ECS keep some, more of it (in per cent) on small machines.
  memory_share = 0.92
  mb_per_mib   = 1.048576

  # GiB of a root volume that the system and images take.
  root_gib_taken = 30

  # Disk behind the databases' folder, of the smallest machine: it may be the one that a job gets.
  disk_mb = {
    for name, kind in local.databases_on : name => {
      root = floor((local.machines[name].root_gib - local.root_gib_taken) * 1024 * local.mb_per_mib)
      nvme = kind == "nvme" ? min([for type in local.machines[name].types : data.aws_ec2_instance_type.this[type].total_instance_storage * 1000]...) : null
      fsx  = kind == "fsx" ? floor(var.fsx.capacity_gib * 1024 * local.mb_per_mib) : null
    }[kind]
  }

  largest = { for name, machine in local.machines : name => data.aws_ec2_instance_type.this[machine.largest] }

  queues = [
    for name, machine in local.machines : merge(
      {
        name           = aws_batch_job_queue.this[name].name
        vcpus          = local.largest[name].default_vcpus
        memory_mb      = floor(local.largest[name].memory_size * local.mb_per_mib * local.memory_share)
        gpus           = machine.gpu ? sum(local.largest[name].gpus[*].count) : 0
        gpu_memory_mb  = machine.gpu ? floor(min(local.largest[name].gpus[*].memory_size...) * local.mb_per_mib) : 0
        disk_mb        = local.disk_mb[name]
        purchase       = machine.purchase
        price_per_hour = machine.price_per_hour
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
