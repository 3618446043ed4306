# Complexes of thousands of residues: GPUs of 48 and 80 GB beside the usual ones. Quotas for them are often 0: ask for
# "Running On-Demand P instances" and "All G and VT Spot Instance Requests" in Service Quotas first.
region = "us-east-1"

queues = ["cpu-small", "cpu-spot", "cpu", "gpu-spot", "gpu", "gpu-48gb-spot", "gpu-48gb", "gpu-large"]

monthly_budget_usd = 5000
budget_emails      = ["you@example.org"]

# Private addresses only. The NAT gateway costs $33 a month while idle.
network = "nat"
