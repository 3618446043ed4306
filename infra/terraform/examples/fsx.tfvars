# Many machines that read large databases, for weeks: a file system that all of them mount, filled from the bucket.
# About $250 a month for each 1,200 GiB at 250 MB/s per TiB, whether jobs run or not: remove it (fsx = null) when the
# work is done; the databases stay in the bucket. LZ4 makes them smaller: 4,800 GiB hold the preset `full`.
region = "us-east-1"

fsx = {
  capacity_gib           = 4800
  throughput_mbs_per_tib = 250
}

# They would be searched where no file system is paid for already.
queues = ["cpu-small", "cpu-spot", "cpu", "gpu-spot", "gpu"]
