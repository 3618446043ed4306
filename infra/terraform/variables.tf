variable "name" {
  description = "Name of the platform: prefix of everything that is made, value of the tag Project."
  type        = string
  default     = "snakefold"

  validation {
    condition     = can(regex("^[a-z][a-z0-9-]{1,23}[a-z0-9]$", var.name))
    error_message = "name has 3 to 25 characters: small letters, digits and '-', the first a letter, the last no '-'."
  }
}

variable "region" {
  description = "AWS region."
  type        = string
  default     = "us-east-1"
}

variable "tags" {
  description = "More tags on everything."
  type        = map(string)
  default     = {}
}

# ---------------------------------------------------------------- network

variable "network" {
  description = <<-EOT
    How machines reach AWS and the internet in a VPC that is made here (README, "What it costs"):
    public     public addresses, no inbound rule; free while no machine runs
    nat        private subnets, one NAT gateway
    endpoints  private subnets, interface endpoints, no internet: databases cannot be downloaded by jobs
  EOT
  type        = string
  default     = "public"

  validation {
    condition     = contains(["public", "nat", "endpoints"], var.network)
    error_message = "network is public, nat or endpoints."
  }
}

variable "vpc_cidr" {
  description = "Addresses of the VPC that is made here."
  type        = string
  default     = "10.40.0.0/16"
}

variable "availability_zones" {
  description = "Zones of the VPC that is made here: the more, the more Spot machines there are to choose from."
  type        = number
  default     = 3

  validation {
    condition     = var.availability_zones >= 1 && var.availability_zones <= 6
    error_message = "availability_zones is 1 to 6."
  }
}

variable "vpc_id" {
  description = "A VPC of yours, instead of one that is made here. Its subnets must reach S3, ECR, ECS and CloudWatch Logs."
  type        = string
  default     = null
}

variable "subnet_ids" {
  description = "Subnets of your VPC."
  type        = list(string)
  default     = []

  validation {
    condition     = (var.vpc_id == null) == (length(var.subnet_ids) == 0)
    error_message = "vpc_id and subnet_ids belong together: give both or neither."
  }
}

variable "route_table_ids" {
  description = "Route tables of your subnets that shall get an S3 gateway endpoint (free). Empty: they have one."
  type        = list(string)
  default     = []

  validation {
    condition     = var.vpc_id != null || length(var.route_table_ids) == 0
    error_message = "route_table_ids are those of your own VPC: give vpc_id too."
  }
}

# ---------------------------------------------------------------- data

variable "bucket_name" {
  description = "Name of the bucket; by default the platform's name, the account's number and the region."
  type        = string
  default     = null
}

variable "bucket_versioning" {
  description = "Keep what is overwritten or removed for a week. Off: the store is immutable, all else can be made again."
  type        = bool
  default     = false
}

variable "runs_expire_days" {
  description = "Remove files of runs after so many days (the store keeps the results). null: never."
  type        = number
  default     = null
}

variable "delete_data_on_destroy" {
  description = "Whether `terraform destroy` may remove a bucket and repositories that are not empty."
  type        = bool
  default     = false
}

variable "databases_prefix" {
  description = "Where databases lie in the bucket: `databases.folder` of the config, below the bucket."
  type        = string
  default     = ".snakefold/databases"

  validation {
    condition     = can(regex("^[A-Za-z0-9._/-]*[A-Za-z0-9]$", var.databases_prefix)) && !startswith(var.databases_prefix, "/")
    error_message = "databases_prefix neither begins nor ends with '/'."
  }
}

variable "store_prefix" {
  description = "Where the store lies in the bucket: `store` of the config, below the bucket."
  type        = string
  default     = ".snakefold/store"

  validation {
    condition     = can(regex("^[A-Za-z0-9._/-]*[A-Za-z0-9]$", var.store_prefix)) && !startswith(var.store_prefix, "/")
    error_message = "store_prefix neither begins nor ends with '/'."
  }
}

variable "jobs_may_publish_databases" {
  description = <<-EOT
    Whether the jobs of any run may write databases. Off: only `snakefold databases sync` does, with a role of its own;
    a run whose databases are not there fails in its first job, which says so.
  EOT
  type        = bool
  default     = false
}

variable "fsx" {
  description = <<-EOT
    FSx for Lustre in front of the bucket's databases, mounted on every machine instead of a disk of its own. It costs
    money for as long as it exists (README). null: none.
  EOT
  type = object({
    capacity_gib           = optional(number, 1200)
    throughput_mbs_per_tib = optional(number, 250)
  })
  default = null
}

variable "images" {
  description = "Image references by name, for images that containers/images.yaml does not pin. Best by digest."
  type        = map(string)
  default     = {}
}

# ---------------------------------------------------------------- machines

variable "queues" {
  description = "Which of `machines` get a compute environment and a queue. gpu-large is expensive, hence not among them."
  type        = set(string)
  default     = ["cpu-small", "cpu-spot", "cpu", "cpu-nvme-spot", "gpu-spot", "gpu", "gpu-48gb-spot", "gpu-48gb"]

  validation {
    condition     = length(var.queues) > 0 && alltrue([for name in var.queues : contains(keys(var.machines), name)])
    error_message = "queues names entries of machines, at least one."
  }
}

variable "machines" {
  description = <<-EOT
    Kinds of machines. Each has one compute environment and one queue: a job finds its queue by price and size, and goes
    to an on-demand queue when Spot machines are taken away; with both kinds behind one queue its price would be wrong.
    largest         the type by which the fleet file describes the queue
    price_per_hour  of that, in USD; it decides where jobs go, and enters the ledger
    nvme            its instance store holds the databases; else the root volume does
    root_gib        size of the root volume: images, scratch and, without nvme and FSx, databases
  EOT
  type = map(object({
    purchase       = string
    types          = list(string)
    largest        = string
    price_per_hour = number
    max_vcpus      = number
    gpu            = optional(bool, false)
    nvme           = optional(bool, false)
    root_gib       = optional(number, 100)
  }))
  default = {
    # For controllers (2 vCPU) of launched runs: they would otherwise have a large machine started for themselves.
    cpu-small = {
      purchase = "on_demand", largest = "m6i.large", price_per_hour = 0.096, max_vcpus = 32
      types    = ["m6i.large"]
    }
    cpu-spot = {
      purchase = "spot", largest = "r6i.24xlarge", price_per_hour = 2.1, max_vcpus = 2048, root_gib = 200
      types = [
        "c6i.8xlarge", "c6i.16xlarge", "m6i.4xlarge", "m6i.8xlarge", "m6i.16xlarge", "m7i.8xlarge", "m7i.16xlarge",
        "r6i.4xlarge", "r6i.8xlarge", "r6i.16xlarge", "r6i.24xlarge", "r7i.8xlarge",
      ]
    }
    cpu = {
      purchase = "on_demand", largest = "r6i.24xlarge", price_per_hour = 6.05, max_vcpus = 512, root_gib = 200
      types    = ["m6i.4xlarge", "m6i.8xlarge", "r6i.4xlarge", "r6i.8xlarge", "r6i.16xlarge", "r6i.24xlarge"]
    }
    # Large databases: from 1.9 TB (8xlarge) to 5.7 TB (24xlarge) of local disk.
    cpu-nvme-spot = {
      purchase = "spot", largest = "r6id.24xlarge", price_per_hour = 2.5, max_vcpus = 1024, nvme = true
      types    = ["m6id.8xlarge", "m6id.16xlarge", "m6id.24xlarge", "r6id.8xlarge", "r6id.16xlarge", "r6id.24xlarge"]
    }
    # GPUs of one size each: AWS Batch does not know a GPU's memory, so a queue of 24 and 48 GB would give either.
    gpu-spot = {
      purchase = "spot", largest = "g5.4xlarge", price_per_hour = 0.65, max_vcpus = 512, gpu = true, nvme = true
      types    = ["g5.xlarge", "g5.2xlarge", "g5.4xlarge", "g6.xlarge", "g6.2xlarge", "g6.4xlarge"]
    }
    gpu = {
      purchase = "on_demand", largest = "g5.4xlarge", price_per_hour = 1.62, max_vcpus = 128, gpu = true, nvme = true
      types    = ["g5.xlarge", "g5.2xlarge", "g5.4xlarge", "g6.2xlarge", "g6.4xlarge"]
    }
    gpu-48gb-spot = {
      purchase = "spot", largest = "g6e.4xlarge", price_per_hour = 1.3, max_vcpus = 256, gpu = true, nvme = true
      types    = ["g6e.xlarge", "g6e.2xlarge", "g6e.4xlarge"]
    }
    gpu-48gb = {
      purchase = "on_demand", largest = "g6e.4xlarge", price_per_hour = 3.0, max_vcpus = 64, gpu = true, nvme = true
      types    = ["g6e.xlarge", "g6e.2xlarge", "g6e.4xlarge"]
    }
    gpu-large = {
      purchase = "on_demand", largest = "p5.4xlarge", price_per_hour = 6.88, max_vcpus = 64, gpu = true, nvme = true
      types    = ["p5.4xlarge"]
    }
  }

  validation {
    condition     = alltrue([for machine in var.machines : contains(["spot", "on_demand"], machine.purchase)])
    error_message = "purchase is spot or on_demand."
  }
  validation {
    # A family ("g5") has sizes that are not described by the queue's largest machine.
    condition     = alltrue([for machine in var.machines : alltrue([for type in machine.types : strcontains(type, ".")])])
    error_message = "types are whole ones, such as g5.xlarge, not families."
  }
  validation {
    condition     = alltrue([for machine in var.machines : contains(machine.types, machine.largest)])
    error_message = "largest is one of the types."
  }
}

variable "root_volume" {
  description = "Speed of the machines' root volumes (gp3)."
  type = object({
    iops           = optional(number, 4000)
    throughput_mbs = optional(number, 500)
  })
  default = {}
}

variable "share_identifier" {
  description = "Makes the queues fair-share queues, for jobs of this identifier and others. null: first come, first served."
  type        = string
  default     = null
}

variable "batch_service_role_arn" {
  description = "Role of AWS Batch itself. null: its service-linked role, which alone lets it update machines in place."
  type        = string
  default     = null
}

# ---------------------------------------------------------------- watching

variable "log_retention_days" {
  description = "How long jobs' logs are kept."
  type        = number
  default     = 30
}

variable "monthly_budget_usd" {
  description = "Budget of a month for what has the tag Project."
  type        = number
  default     = 500
}

variable "budget_emails" {
  description = "Who is told at 50 and 80 % of the budget, and when the month's forecast exceeds it."
  type        = list(string)
  default     = []
}

variable "dashboard" {
  description = "Whether to make a CloudWatch dashboard: three in an account are free, others cost $3 a month."
  type        = bool
  default     = true
}
