locals {
  bucket_name = coalesce(var.bucket_name, "${var.name}-${local.account}-${var.region}")
}

resource "aws_s3_bucket" "this" {
  #checkov:skip=CKV_AWS_18:Access logs would be a second bucket that grows with every run; CloudTrail can tell the same.
  #checkov:skip=CKV_AWS_144:Everything here can be computed or downloaded again; a copy in another region doubles the price.
  #checkov:skip=CKV_AWS_145:Encrypted with S3's keys (SSE-S3). A key of one's own costs money while idle and for every call.
  #checkov:skip=CKV2_AWS_62:Nobody waits for events of objects; the executor hears of jobs from AWS Batch.
  bucket        = local.bucket_name
  force_destroy = var.delete_data_on_destroy
}

resource "aws_s3_bucket_public_access_block" "this" {
  bucket                  = aws_s3_bucket.this.id
  block_public_acls       = true
  block_public_policy     = true
  ignore_public_acls      = true
  restrict_public_buckets = true
}

resource "aws_s3_bucket_ownership_controls" "this" {
  bucket = aws_s3_bucket.this.id

  rule {
    object_ownership = "BucketOwnerEnforced"
  }
}

resource "aws_s3_bucket_server_side_encryption_configuration" "this" {
  bucket = aws_s3_bucket.this.id

  rule {
    apply_server_side_encryption_by_default {
      sse_algorithm = "AES256"
    }
  }
}

# Off by default. A controller rewrites its lock every half minute and jobs rewrite receipts: with versioning, listings
# slow down and storage grows, for data that is immutable (store, by content) or can be made again (runs, databases).
resource "aws_s3_bucket_versioning" "this" {
  count  = var.bucket_versioning ? 1 : 0
  bucket = aws_s3_bucket.this.id

  versioning_configuration {
    status = "Enabled"
  }
}

resource "aws_s3_bucket_lifecycle_configuration" "this" {
  bucket = aws_s3_bucket.this.id

  # Parts of an upload that broke off cost as much as objects and are seen in no listing. A week is longer than the
  # upload of the largest database, and long enough to go on with one.
  rule {
    id     = "unfinished-uploads"
    status = "Enabled"
    filter {}
    abort_incomplete_multipart_upload {
      days_after_initiation = 7
    }
  }

  rule {
    id     = "old-versions"
    status = "Enabled"
    filter {}
    noncurrent_version_expiration {
      noncurrent_days = 7
    }
  }

  rule {
    id     = "runs"
    status = var.runs_expire_days == null ? "Disabled" : "Enabled"
    filter {
      prefix = "runs/"
    }
    expiration {
      days = coalesce(var.runs_expire_days, 365)
    }
  }
}

data "aws_iam_policy_document" "bucket" {
  statement {
    sid       = "OnlyTls"
    effect    = "Deny"
    actions   = ["s3:*"]
    resources = [aws_s3_bucket.this.arn, "${aws_s3_bucket.this.arn}/*"]

    principals {
      type        = "*"
      identifiers = ["*"]
    }

    condition {
      test     = "Bool"
      variable = "aws:SecureTransport"
      values   = ["false"]
    }
  }
}

resource "aws_s3_bucket_policy" "this" {
  bucket     = aws_s3_bucket.this.id
  policy     = data.aws_iam_policy_document.bucket.json
  depends_on = [aws_s3_bucket_public_access_block.this]
}

# ---------------------------------------------------------------- images

locals {
  image_list = yamldecode(file("${path.module}/../../containers/images.yaml"))

  # An image that has not been pushed yet is not in the fleet file; `make aws-config` adds it later.
  pinned_images = {
    for name, image in local.image_list : name => "${image.reference}@${image.digest}"
    if image.reference != null && image.digest != null
  }
}

resource "aws_ecr_repository" "this" {
  #checkov:skip=CKV_AWS_136:Encrypted with AWS's keys; images hold nothing that is not in this repository.
  for_each             = local.image_list
  name                 = "${var.name}/${each.key}"
  image_tag_mutability = "IMMUTABLE"
  force_delete         = var.delete_data_on_destroy

  image_scanning_configuration {
    scan_on_push = true
  }
}

resource "aws_ecr_lifecycle_policy" "this" {
  for_each   = aws_ecr_repository.this
  repository = each.value.name
  # Only what has no tag: a tagged image may be the one that runs, and provenance records, name by its digest.
  policy = jsonencode({
    rules = [{
      rulePriority = 1
      description  = "untagged images"
      selection    = { tagStatus = "untagged", countType = "sinceImagePushed", countUnit = "days", countNumber = 14 }
      action       = { type = "expire" }
    }]
  })
}
