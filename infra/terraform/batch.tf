locals {
  machines = { for name, machine in var.machines : name => machine if contains(var.queues, name) }

  # The executor names its job definitions by their content.
  job_definitions = "arn:${local.partition}:batch:${local.here}:job-definition/snakemake-*"

  # Where a kind of machines has its databases. Jobs bring them from S3 themselves, once a machine, and hold a lock
  # meanwhile (snakefold/databases/local.py): they know which ones they need and check every digest. So a machine need
  # only have the folder, and it starts in seconds, not after a download that perhaps no job asks for.
  databases_on = {
    for name, machine in local.machines : name => var.fsx != null ? "fsx" : machine.nvme ? "nvme" : "root"
  }

  user_data = {
    for name, kind in local.databases_on : name => templatefile("${path.module}/user_data.tftpl", {
      databases_on = kind
      folder       = local.databases_folder
      lustre       = kind == "fsx" ? "${aws_fsx_lustre_file_system.databases[0].dns_name}@tcp:/${aws_fsx_lustre_file_system.databases[0].mount_name}" : ""
    })
  }
}

# What AWS says of the machines: no vCPU, memory, GPU or disk is written by hand. The largest describes its queue; of
# GPUs and of instance stores every type counts.
data "aws_ec2_instance_type" "this" {
  for_each = toset(flatten([
    for machine in local.machines : machine.gpu || machine.nvme ? machine.types : [machine.largest]
  ]))
  instance_type = each.key
}

resource "aws_launch_template" "this" {
  for_each               = local.machines
  name_prefix            = "${var.name}-${each.key}-"
  user_data              = base64encode(local.user_data[each.key])
  update_default_version = true

  metadata_options {
    http_endpoint = "enabled"
    http_tokens   = "required"
    # Does not keep containers away, which use the machine's own network; the role without rights on S3 does.
    http_put_response_hop_limit = 1
  }

  block_device_mappings {
    device_name = "/dev/xvda"
    ebs {
      volume_type           = "gp3"
      volume_size           = each.value.root_gib
      iops                  = var.root_volume.iops
      throughput            = var.root_volume.throughput_mbs
      encrypted             = true
      delete_on_termination = true
    }
  }

  # Default tags reach the template, not what is started from it.
  dynamic "tag_specifications" {
    for_each = toset(["instance", "volume"])
    content {
      resource_type = tag_specifications.value
      tags          = merge(local.tags, { Name = "${var.name}-${each.key}" })
    }
  }
}

# Without a name: then a new one can be made before the old one goes (and provider 6 calls the argument otherwise).
resource "aws_batch_compute_environment" "this" {
  for_each     = local.machines
  type         = "MANAGED"
  service_role = var.batch_service_role_arn
  tags         = { Name = "${var.name}-${each.key}" }

  compute_resources {
    type                = each.value.purchase == "spot" ? "SPOT" : "EC2"
    allocation_strategy = each.value.purchase == "spot" ? "SPOT_PRICE_CAPACITY_OPTIMIZED" : "BEST_FIT_PROGRESSIVE"
    instance_type       = each.value.types
    instance_role       = aws_iam_instance_profile.instance.arn
    # No machine while there is no job.
    min_vcpus          = 0
    max_vcpus          = each.value.max_vcpus
    subnets            = local.subnet_ids
    security_group_ids = [aws_security_group.machines.id]

    ec2_configuration {
      image_type = each.value.gpu ? "ECS_AL2023_NVIDIA" : "ECS_AL2023"
    }

    launch_template {
      launch_template_id = aws_launch_template.this[each.key].id
      version            = aws_launch_template.this[each.key].latest_version
    }
  }

  # A changed template reaches machines that start later; those that run finish their jobs of half an hour first.
  update_policy {
    job_execution_timeout_minutes = 60
    terminate_jobs_on_update      = false
  }

  lifecycle {
    create_before_destroy = true
  }

  depends_on = [
    aws_iam_role_policy_attachment.instance,
    # Machines that start before they can reach ECS never join.
    aws_route_table_association.machines,
    aws_route.public,
    aws_route.private,
    aws_vpc_endpoint.interface,
    aws_fsx_data_repository_association.databases,
  ]
}

resource "aws_batch_scheduling_policy" "this" {
  count = var.share_identifier == null ? 0 : 1
  name  = var.name

  fair_share_policy {
    share_decay_seconds = 3600
    share_distribution {
      share_identifier = var.share_identifier
      weight_factor    = 1
    }
  }
}

resource "aws_batch_job_queue" "this" {
  for_each              = local.machines
  name                  = "${var.name}-${each.key}"
  state                 = "ENABLED"
  priority              = 1
  scheduling_policy_arn = one(aws_batch_scheduling_policy.this[*].arn)

  compute_environment_order {
    order               = 1
    compute_environment = aws_batch_compute_environment.this[each.key].arn
  }

  # A job that can never start holds up those behind it. The executor warns after 30 minutes and gives up after a day
  # (waiting-warning, waiting-limit): what is wrong with a job or queue ends it at the warning, a lack of machines
  # after the day. This also ends jobs whose controller is gone.
  dynamic "job_state_time_limit_action" {
    for_each = {
      "MISCONFIGURATION:COMPUTE_ENVIRONMENT_MAX_RESOURCE" = 1800
      "MISCONFIGURATION:JOB_RESOURCE_REQUIREMENT"         = 1800
      "CAPACITY:INSUFFICIENT_INSTANCE_CAPACITY"           = 86400
    }
    content {
      action           = "CANCEL"
      state            = "RUNNABLE"
      reason           = job_state_time_limit_action.key
      max_time_seconds = job_state_time_limit_action.value
    }
  }

  lifecycle {
    precondition {
      condition     = length(distinct([for type in each.value.types : data.aws_ec2_instance_type.this[type].gpus[*].memory_size if each.value.gpu])) <= 1
      error_message = "machines.${each.key}: the GPUs of its types differ in memory. AWS Batch does not know it: a job would get either."
    }
    precondition {
      condition     = !each.value.gpu || length(data.aws_ec2_instance_type.this[each.value.largest].gpus) > 0
      error_message = "machines.${each.key}: gpu is true, but ${each.value.largest} has none."
    }
    precondition {
      condition     = alltrue([for type in each.value.types : data.aws_ec2_instance_type.this[type].instance_storage_supported if each.value.nvme])
      error_message = "machines.${each.key}: nvme is true, but not all of its types have an instance store."
    }
  }
}
