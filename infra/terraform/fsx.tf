# FSx for Lustre shows the bucket's databases as files, and reads them from S3 when they are first asked for. It costs
# money for as long as it exists, hence off by default.

locals {
  lustre_ports = { lustre = [988, 988], lustre_more = [1018, 1023] }
}

resource "aws_security_group" "fsx" {
  count       = var.fsx == null ? 0 : 1
  name_prefix = "${var.name}-fsx-"
  description = "Lustre, from the machines and between its own servers"
  vpc_id      = local.vpc_id

  lifecycle {
    create_before_destroy = true
  }
}

resource "aws_vpc_security_group_ingress_rule" "fsx_machines" {
  for_each                     = var.fsx == null ? {} : local.lustre_ports
  description                  = "Lustre from the machines"
  security_group_id            = aws_security_group.fsx[0].id
  referenced_security_group_id = aws_security_group.machines.id
  from_port                    = each.value[0]
  to_port                      = each.value[1]
  ip_protocol                  = "tcp"
}

resource "aws_vpc_security_group_ingress_rule" "fsx_servers" {
  for_each                     = var.fsx == null ? {} : local.lustre_ports
  description                  = "Lustre between its servers"
  security_group_id            = aws_security_group.fsx[0].id
  referenced_security_group_id = aws_security_group.fsx[0].id
  from_port                    = each.value[0]
  to_port                      = each.value[1]
  ip_protocol                  = "tcp"
}

# Lustre's servers call each other and the machines.
resource "aws_vpc_security_group_egress_rule" "fsx" {
  for_each = var.fsx == null ? {} : {
    machines = aws_security_group.machines.id
    servers  = aws_security_group.fsx[0].id
  }
  description                  = "Lustre to ${each.key}"
  security_group_id            = aws_security_group.fsx[0].id
  referenced_security_group_id = each.value
  from_port                    = 988
  to_port                      = 1023
  ip_protocol                  = "tcp"
}

# Lustre's servers also call machines back.
resource "aws_vpc_security_group_ingress_rule" "machines_lustre" {
  for_each                     = var.fsx == null ? {} : local.lustre_ports
  description                  = "Lustre calls back"
  security_group_id            = aws_security_group.machines.id
  referenced_security_group_id = aws_security_group.fsx[0].id
  from_port                    = each.value[0]
  to_port                      = each.value[1]
  ip_protocol                  = "tcp"
}

resource "aws_fsx_lustre_file_system" "databases" {
  #checkov:skip=CKV_AWS_190:Encrypted with AWS's key for FSx; what it holds are public databases.
  count                       = var.fsx == null ? 0 : 1
  deployment_type             = "PERSISTENT_2"
  storage_type                = "SSD"
  storage_capacity            = var.fsx.capacity_gib
  per_unit_storage_throughput = var.fsx.throughput_mbs_per_tib
  data_compression_type       = "LZ4"
  file_system_type_version    = "2.15"
  # The default is 0, but a backup of what S3 holds anyway would outlive `terraform destroy`.
  automatic_backup_retention_days = 0
  # It lives in one zone; machines in others pay $0.01 for each GB that they read.
  subnet_ids         = [local.subnet_ids[0]]
  security_group_ids = [aws_security_group.fsx[0].id]
  tags               = { Name = var.name }

  metadata_configuration {
    mode = "AUTOMATIC"
  }
}

resource "aws_fsx_data_repository_association" "databases" {
  count                = var.fsx == null ? 0 : 1
  file_system_id       = aws_fsx_lustre_file_system.databases[0].id
  data_repository_path = "s3://${aws_s3_bucket.this.id}/${var.databases_prefix}"
  # The root: jobs then find `<database>/manifest.json` directly below the folder that they mount.
  file_system_path                 = "/"
  batch_import_meta_data_on_create = true

  s3 {
    # Databases come from S3 and never go back: what jobs write here (compiled kernels) stays here.
    auto_import_policy {
      events = ["NEW", "CHANGED", "DELETED"]
    }
  }
}
