# What must hold of every plan. No account is asked: AWS is mocked.

mock_provider "aws" {
  mock_data "aws_iam_policy_document" {
    defaults = { json = "{\"Version\":\"2012-10-17\",\"Statement\":[]}" }
  }
  mock_data "aws_availability_zones" {
    defaults = { names = ["us-east-1a", "us-east-1b", "us-east-1c", "us-east-1d"] }
  }
  mock_data "aws_caller_identity" {
    defaults = { account_id = "123456789012" }
  }
  mock_data "aws_partition" {
    defaults = { partition = "aws" }
  }
  mock_data "aws_ec2_instance_type" {
    defaults = {
      default_vcpus = 16
      memory_size   = 65536

      instance_storage_supported = true
      total_instance_storage     = 600
      gpus                       = [{ count = 1, memory_size = 22888, manufacturer = "NVIDIA", name = "A10G" }]
    }
  }
  mock_resource "aws_iam_role" {
    defaults = { arn = "arn:aws:iam::123456789012:role/mock" }
  }
  mock_resource "aws_iam_instance_profile" {
    defaults = { arn = "arn:aws:iam::123456789012:instance-profile/mock" }
  }
  mock_resource "aws_batch_scheduling_policy" {
    defaults = { arn = "arn:aws:batch:us-east-1:123456789012:scheduling-policy/mock" }
  }
  mock_resource "aws_batch_compute_environment" {
    defaults = { arn = "arn:aws:batch:us-east-1:123456789012:compute-environment/mock" }
  }
  mock_resource "aws_batch_job_queue" {
    defaults = { arn = "arn:aws:batch:us-east-1:123456789012:job-queue/mock" }
  }
  mock_resource "aws_launch_template" {
    defaults = { id = "lt-0123456789abcdef0", latest_version = 1 }
  }
  mock_resource "aws_s3_bucket" {
    defaults = { arn = "arn:aws:s3:::mock" }
  }
  mock_resource "aws_sqs_queue" {
    defaults = { arn = "arn:aws:sqs:us-east-1:123456789012:mock" }
  }
  mock_resource "aws_cloudwatch_log_group" {
    defaults = { arn = "arn:aws:logs:us-east-1:123456789012:log-group:mock" }
  }
  mock_resource "aws_fsx_lustre_file_system" {
    defaults = { id = "fs-0123456789abcdef0", dns_name = "fs-0123456789abcdef0.fsx.us-east-1.amazonaws.com", mount_name = "abcdefgh" }
  }
}

run "defaults" {
  command = plan

  assert {
    condition     = alltrue([for machine in aws_batch_compute_environment.this : machine.compute_resources[0].min_vcpus == 0])
    error_message = "a machine would run while no job does"
  }
  assert {
    condition     = length(aws_nat_gateway.this) + length(aws_vpc_endpoint.interface) + length(aws_eip.nat) + length(aws_fsx_lustre_file_system.databases) == 0
    error_message = "something costs money while no job runs"
  }
  assert {
    condition     = alltrue([for template in aws_launch_template.this : template.metadata_options[0].http_tokens == "required"])
    error_message = "the metadata service answers without a token"
  }
  assert {
    condition     = alltrue([for template in aws_launch_template.this : template.block_device_mappings[0].ebs[0].encrypted == "true"])
    error_message = "a root volume is not encrypted"
  }
  assert {
    condition = alltrue([
      for name, machine in aws_batch_compute_environment.this :
      machine.compute_resources[0].allocation_strategy == (var.machines[name].purchase == "spot" ? "SPOT_PRICE_CAPACITY_OPTIMIZED" : "BEST_FIT_PROGRESSIVE")
    ])
    error_message = "the way to choose machines does not fit how they are bought"
  }
  assert {
    condition = alltrue([
      for name, machine in aws_batch_compute_environment.this :
      machine.compute_resources[0].ec2_configuration[0].image_type == (var.machines[name].gpu ? "ECS_AL2023_NVIDIA" : "ECS_AL2023")
    ])
    error_message = "the image of the machines does not fit their kind"
  }
  assert {
    condition     = !contains(keys(aws_batch_job_queue.this), "gpu-large")
    error_message = "gpu-large is on"
  }
  assert {
    condition     = alltrue([for repository in aws_ecr_repository.this : repository.image_tag_mutability == "IMMUTABLE" && repository.image_scanning_configuration[0].scan_on_push])
    error_message = "a repository's tags can change, or nobody scans its images"
  }
  assert {
    condition     = length(aws_s3_bucket_versioning.this) == 0 && !aws_s3_bucket.this.force_destroy
    error_message = "the bucket's defaults have changed"
  }
}

run "the_budget_counts_what_has_our_tag" {
  command = plan

  variables {
    budget_emails = ["you@example.org"]
  }

  assert {
    condition     = one(aws_budgets_budget.this.cost_filter).values == tolist([join("$", ["user:Project", "snakefold"])])
    error_message = "the budget counts another tag"
  }
  assert {
    condition     = length(aws_budgets_budget.this.notification) == 3
    error_message = "nobody is told at 50, 80 and 100 %"
  }
}

run "whole_platform" {
  command = apply

  variables {
    share_identifier = "default"
    images           = { worker = "123456789012.dkr.ecr.us-east-1.amazonaws.com/snakefold/worker@sha256:00" }
  }

  assert {
    condition     = length(output.fleet.queues) == length(var.queues) && alltrue([for queue in output.fleet.queues : queue.share_identifier == "default"])
    error_message = "the fleet file lacks a queue, or an identifier that its queues need"
  }
  assert {
    # 65,536 MiB; a GPU of 22,888 MiB.
    condition     = alltrue([for queue in output.fleet.queues : queue.memory_mb == 63221])
    error_message = "memory of a queue is not in MB, or leaves nothing for ECS"
  }
  assert {
    condition     = alltrue([for queue in output.fleet.queues : queue.gpu_memory_mb == (queue.gpus == 0 ? 0 : 23999)])
    error_message = "memory of a GPU is not in MB"
  }
  assert {
    # An instance store of 600 GB; of a root volume of 200 GiB, what images leave.
    condition     = alltrue([for queue in output.fleet.queues : queue.disk_mb == { snakefold-gpu = 600000, snakefold-cpu = 182536 }[queue.name] if contains(["snakefold-gpu", "snakefold-cpu"], queue.name)])
    error_message = "the disk behind the mounts is wrong"
  }
  assert {
    condition     = output.fleet.mounts[0] == "/mnt/databases:/mnt/databases" && output.fleet.images.worker == var.images.worker
    error_message = "mounts or images of the fleet file are wrong"
  }
  assert {
    condition     = alltrue([for name, template in aws_launch_template.this : strcontains(base64decode(template.user_data), "mkfs.xfs") == var.machines[name].nvme])
    error_message = "user data of a kind of machines is not that of its disks"
  }
}

run "private_network_with_nat" {
  command = plan

  variables {
    network = "nat"
  }

  assert {
    condition     = length(aws_nat_gateway.this) == 1 && !anytrue([for subnet in aws_subnet.machines : subnet.map_public_ip_on_launch])
    error_message = "one NAT gateway and no public addresses are expected"
  }
}

run "private_network_with_endpoints" {
  command = plan

  variables {
    network = "endpoints"
  }

  assert {
    condition     = length(aws_internet_gateway.this) == 0 && length(aws_vpc_endpoint.interface) == 8 && length(aws_vpc_endpoint.s3) == 1
    error_message = "no way to the internet, but to the services that machines call, is expected"
  }
}

run "own_vpc_is_left_alone" {
  command = plan

  variables {
    vpc_id     = "vpc-0123456789abcdef0"
    subnet_ids = ["subnet-0123456789abcdef0"]
  }

  assert {
    condition     = length(aws_vpc.this) + length(aws_subnet.machines) + length(aws_route_table.machines) + length(aws_vpc_endpoint.s3) == 0
    error_message = "nothing is to be made in a VPC that was given"
  }
}

run "fsx_is_mounted_everywhere" {
  command = apply

  variables {
    fsx = {}
  }

  assert {
    condition     = alltrue([for template in aws_launch_template.this : strcontains(base64decode(template.user_data), "mount -t lustre -o relatime,flock fs-0123456789abcdef0.fsx.us-east-1.amazonaws.com@tcp:/abcdefgh /mnt/databases")])
    error_message = "a kind of machines does not mount the file system"
  }
  assert {
    condition     = aws_fsx_data_repository_association.databases[0].data_repository_path == "s3://${aws_s3_bucket.this.id}/.snakefold/databases"
    error_message = "the file system shows another place of the bucket than that of the databases"
  }
}

run "faults_of_variables" {
  command = plan

  variables {
    network      = "carrier-pigeon"
    vpc_id       = "vpc-0123456789abcdef0"
    queues       = ["cpu-spot", "no-such-machines"]
    store_prefix = "/store/"
  }

  expect_failures = [var.network, var.subnet_ids, var.queues, var.store_prefix]
}

run "families_of_machines_are_refused" {
  command = plan

  variables {
    queues = ["all"]
    machines = {
      all = { purchase = "spot", types = ["g5"], largest = "g5.xlarge", price_per_hour = 1, max_vcpus = 8, gpu = true }
    }
  }

  expect_failures = [var.machines]
}
