# Your VPC and subnets; nothing is made in them but security groups and, in the route tables named here, an S3 gateway
# endpoint (free). The subnets must reach ECR, ECS, AWS Batch and CloudWatch Logs: by a NAT gateway, interface endpoints,
# or public addresses that they give to their machines.
region = "eu-west-1"

vpc_id          = "vpc-0123456789abcdef0"
subnet_ids      = ["subnet-0123456789abcdef0", "subnet-0123456789abcdef1"]
route_table_ids = ["rtb-0123456789abcdef0"]
