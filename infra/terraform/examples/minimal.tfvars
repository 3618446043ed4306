# One queue for the template engine on Spot machines, and one small one for controllers of launched runs.
region = "us-east-1"
queues = ["cpu-small", "cpu-spot"]

monthly_budget_usd = 50
budget_emails      = ["you@example.org"]
