"""Drives a running service as its users do: the official SDK for v2, boto3 for the buckets, signed raw HTTP for v1.

Run by tests/sdk.rs with the name of a scenario; everything else comes from the environment.
"""
import sys

import archive
import buckets
import cdn
import clouds
import deletions
import examples
import extensions
import groups
import identity
import lists
import migrations
import node
import notifications
import objects
import old_sdks
import request_log
import service_kills
import sync
import tasks
import v1

SCENARIOS = {
    "v2_lifecycle": tasks.v2_lifecycle,
    "v2_invalid_input": tasks.v2_invalid_input,
    "task_list_order": tasks.task_list_order,
    "unrecorded_failures": tasks.unrecorded_failures,
    "lists": lists.lists,
    "buckets": buckets.buckets,
    "bucket_levels": buckets.bucket_levels,
    "groups": groups.groups,
    "sync": sync.sync,
    "cdn": cdn.cdn,
    "notifications": notifications.notifications,
    "archived_objects": archive.archived_objects,
    "vendor_checksums": clouds.vendor_checksums,
    "node": node.node,
    "sdk_of_2018": old_sdks.sdk_of_2018,
    "sdk_3_0_60": old_sdks.sdk_3_0_60,
    "azure": clouds.azure,
    "examples": examples.examples,
    "google": clouds.google,
    "filters": extensions.filters,
    "versions": extensions.versions,
    "sync_by_listing": extensions.sync_by_listing,
    "service_kills": service_kills.service_kills,
    "deletions": deletions.deletions,
    "dcs_lifecycle": migrations.dcs_lifecycle,
    "dcs_import": migrations.dcs_import,
    "dcs_address_exchange": migrations.dcs_address_exchange,
    "dcs_recovery": migrations.dcs_recovery,
    "dcs_cutover": migrations.dcs_cutover,
    "v1_lifecycle": v1.v1_lifecycle,
    "identity": identity.identity,
    "many_objects": objects.many_objects,
    "unusual_keys": objects.unusual_keys,
}

request_log.start()
try:
    SCENARIOS[sys.argv[1]]()
except BaseException:
    print(request_log.report(), file=sys.stderr)
    raise
print("ok")
