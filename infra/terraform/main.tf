# An account becomes a folding platform: a bucket, queues of machines that come and go, images, roles.
# README.md says how to apply it and what each part costs.

data "aws_caller_identity" "this" {}

data "aws_partition" "this" {}

locals {
  tags      = merge({ Project = var.name, ManagedBy = "terraform" }, var.tags)
  account   = data.aws_caller_identity.this.account_id
  partition = data.aws_partition.this.partition
  # As in ARNs of services that know regions and accounts.
  here = "${var.region}:${local.account}"

  # The folder of a machine that jobs mount; `SNAKEFOLD_DATABASE_CACHE` of the images has the same name.
  databases_folder = "/mnt/databases"
}
