# Create an OMS task and wait until it has ended. Needs: the provider huaweicloud/huaweicloud.
terraform {
  required_providers {
    huaweicloud = { source = "huaweicloud/huaweicloud" }
  }
}

variable "endpoint" { default = "http://127.0.0.1:8790" }
variable "project_name" { default = "lab" }
variable "access_key" { sensitive = true }
variable "secret_key" { sensitive = true }
variable "source_region" { default = "minio-a" }
variable "source_bucket" {}
variable "target_region" { default = "minio-b" }
variable "target_bucket" {}
variable "source_access_key" { sensitive = true }
variable "source_secret_key" { sensitive = true }
variable "target_access_key" { sensitive = true }
variable "target_secret_key" { sensitive = true }

provider "huaweicloud" {
  region       = var.project_name
  project_name = var.project_name
  access_key   = var.access_key
  secret_key   = var.secret_key
  auth_url     = "${var.endpoint}/v3"
  endpoints    = { iam = var.endpoint, oms = var.endpoint }
}

resource "huaweicloud_oms_migration_task" "photos" {
  type                      = "prefix"
  start_task                = true
  enable_metadata_migration = true

  source_object {
    data_source = "AWS"
    region      = var.source_region
    bucket      = var.source_bucket
    object      = [""]
    access_key  = var.source_access_key
    secret_key  = var.source_secret_key
  }

  destination_object {
    region     = var.target_region
    bucket     = var.target_bucket
    access_key = var.target_access_key
    secret_key = var.target_secret_key
  }
}

output "status" { value = huaweicloud_oms_migration_task.photos.status }
