locals {
  own_vpc = var.vpc_id == null
  private = local.own_vpc && var.network != "public"
  zones   = local.own_vpc ? slice(data.aws_availability_zones.this[0].names, 0, min(var.availability_zones, length(data.aws_availability_zones.this[0].names))) : []

  vpc_id     = local.own_vpc ? aws_vpc.this[0].id : var.vpc_id
  subnet_ids = local.own_vpc ? [for zone in local.zones : aws_subnet.machines[zone].id] : var.subnet_ids

  # What machines and controllers call, apart from S3, which has a gateway.
  endpoint_services = ["ecr.api", "ecr.dkr", "ecs", "ecs-agent", "ecs-telemetry", "logs", "batch", "sqs"]
}

data "aws_availability_zones" "this" {
  count = local.own_vpc ? 1 : 0
  state = "available"

  # Without Local Zones, which have few types of machines.
  filter {
    name   = "opt-in-status"
    values = ["opt-in-not-required"]
  }
}

resource "aws_vpc" "this" {
  #checkov:skip=CKV2_AWS_11:Flow logs cost money for each GB that jobs read from S3; nothing listens in this VPC.
  count                = local.own_vpc ? 1 : 0
  cidr_block           = var.vpc_cidr
  enable_dns_support   = true
  enable_dns_hostnames = true
  tags                 = { Name = var.name }
}

# Without rules: what names no security group gets no network.
resource "aws_default_security_group" "this" {
  count  = local.own_vpc ? 1 : 0
  vpc_id = aws_vpc.this[0].id
}

resource "aws_subnet" "machines" {
  # A public address costs money only while its machine runs, a NAT gateway always does.
  for_each                = { for index, zone in local.zones : zone => index }
  vpc_id                  = aws_vpc.this[0].id
  availability_zone       = each.key
  cidr_block              = cidrsubnet(var.vpc_cidr, 4, each.value)
  map_public_ip_on_launch = var.network == "public"
  tags                    = { Name = "${var.name}-${each.key}" }
}

# One table for all zones: a NAT gateway for each would cost three times as much and only help when a zone fails.
resource "aws_route_table" "machines" {
  count  = local.own_vpc ? 1 : 0
  vpc_id = aws_vpc.this[0].id
  tags   = { Name = var.name }
}

resource "aws_route_table_association" "machines" {
  for_each       = aws_subnet.machines
  subnet_id      = each.value.id
  route_table_id = aws_route_table.machines[0].id
}

resource "aws_internet_gateway" "this" {
  count  = local.own_vpc && var.network != "endpoints" ? 1 : 0
  vpc_id = aws_vpc.this[0].id
  tags   = { Name = var.name }
}

resource "aws_route" "public" {
  count                  = local.own_vpc && var.network == "public" ? 1 : 0
  route_table_id         = aws_route_table.machines[0].id
  destination_cidr_block = "0.0.0.0/0"
  gateway_id             = aws_internet_gateway.this[0].id
}

# S3 without a way through the internet: free, and most of what machines move.
resource "aws_vpc_endpoint" "s3" {
  count             = local.own_vpc || length(var.route_table_ids) > 0 ? 1 : 0
  vpc_id            = local.vpc_id
  service_name      = "com.amazonaws.${var.region}.s3"
  vpc_endpoint_type = "Gateway"
  route_table_ids   = local.own_vpc ? [aws_route_table.machines[0].id] : var.route_table_ids
  tags              = { Name = "${var.name}-s3" }
}

# ---------------------------------------------------------------- network = "nat"

resource "aws_subnet" "nat" {
  count             = local.private && var.network == "nat" ? 1 : 0
  vpc_id            = aws_vpc.this[0].id
  availability_zone = local.zones[0]
  cidr_block        = cidrsubnet(var.vpc_cidr, 8, 240)
  tags              = { Name = "${var.name}-nat" }
}

resource "aws_route_table" "nat" {
  count  = length(aws_subnet.nat)
  vpc_id = aws_vpc.this[0].id
  tags   = { Name = "${var.name}-nat" }
}

resource "aws_route_table_association" "nat" {
  count          = length(aws_subnet.nat)
  subnet_id      = aws_subnet.nat[0].id
  route_table_id = aws_route_table.nat[0].id
}

resource "aws_route" "nat_to_internet" {
  count                  = length(aws_subnet.nat)
  route_table_id         = aws_route_table.nat[0].id
  destination_cidr_block = "0.0.0.0/0"
  gateway_id             = aws_internet_gateway.this[0].id
}

resource "aws_eip" "nat" {
  count  = length(aws_subnet.nat)
  domain = "vpc"
  tags   = { Name = "${var.name}-nat" }
}

resource "aws_nat_gateway" "this" {
  count         = length(aws_subnet.nat)
  subnet_id     = aws_subnet.nat[0].id
  allocation_id = aws_eip.nat[0].id
  tags          = { Name = var.name }
  depends_on    = [aws_route.nat_to_internet]
}

resource "aws_route" "private" {
  count                  = length(aws_subnet.nat)
  route_table_id         = aws_route_table.machines[0].id
  destination_cidr_block = "0.0.0.0/0"
  nat_gateway_id         = aws_nat_gateway.this[0].id
}

# ---------------------------------------------------------------- network = "endpoints"

resource "aws_security_group" "endpoints" {
  count       = local.private && var.network == "endpoints" ? 1 : 0
  name_prefix = "${var.name}-endpoints-"
  description = "Interface endpoints: HTTPS from the machines"
  vpc_id      = local.vpc_id

  lifecycle {
    create_before_destroy = true
  }
}

resource "aws_vpc_security_group_ingress_rule" "endpoints" {
  count                        = length(aws_security_group.endpoints)
  description                  = "HTTPS from the machines"
  security_group_id            = aws_security_group.endpoints[0].id
  referenced_security_group_id = aws_security_group.machines.id
  from_port                    = 443
  to_port                      = 443
  ip_protocol                  = "tcp"
}

resource "aws_vpc_endpoint" "interface" {
  for_each            = toset(length(aws_security_group.endpoints) > 0 ? local.endpoint_services : [])
  vpc_id              = local.vpc_id
  service_name        = "com.amazonaws.${var.region}.${each.key}"
  vpc_endpoint_type   = "Interface"
  private_dns_enabled = true
  # Each costs by the hour in each zone; images and data come through the S3 gateway, so one zone does for the rest.
  subnet_ids         = [local.subnet_ids[0]]
  security_group_ids = [aws_security_group.endpoints[0].id]
  tags               = { Name = "${var.name}-${each.key}" }
}

# ---------------------------------------------------------------- machines

resource "aws_security_group" "machines" {
  name_prefix = "${var.name}-machines-"
  description = "Machines of AWS Batch: nothing comes in"
  vpc_id      = local.vpc_id

  lifecycle {
    create_before_destroy = true
  }
}

resource "aws_vpc_security_group_egress_rule" "machines" {
  description       = "Everything: AWS, publishers of databases, Lustre"
  security_group_id = aws_security_group.machines.id
  cidr_ipv4         = "0.0.0.0/0"
  ip_protocol       = "-1"
}
