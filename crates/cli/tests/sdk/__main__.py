"""Drives a running service as its users do: the official SDK for v2, boto3 for the buckets, signed raw HTTP for v1.

Run by tests/sdk.rs with the name of a scenario; everything else comes from the environment.
"""
import sys

import archive
import beyond
import buckets
import cdn
import clouds
import crash
import deletions
import groups
import identity
import lists
import migrations
import node
import notices
import objects
import old_sdks
import sync
import tasks
import v1

SCENARIOS = {
    "v2": tasks.v2,
    "bad_input": tasks.bad_input,
    "order": tasks.order,
    "unrecorded": tasks.unrecorded,
    "lists": lists.lists,
    "buckets": buckets.buckets,
    "levels": buckets.levels,
    "groups": groups.groups,
    "sync": sync.sync,
    "cdn": cdn.cdn,
    "notices": notices.notices,
    "restore": archive.restore,
    "vendor": clouds.vendor,
    "node": node.node,
    "old_maas": old_sdks.maas,
    "old_oms": old_sdks.oms,
    "azure": clouds.azure,
    "google": clouds.google,
    "filters": beyond.filters,
    "versions": beyond.versions,
    "sweeps": beyond.sweeps,
    "crash": crash.crash,
    "deletions": deletions.deletions,
    "dcs_life": migrations.dcs_life,
    "dcs_import": migrations.dcs_import,
    "dcs_exchange": migrations.dcs_exchange,
    "dcs_trouble": migrations.dcs_trouble,
    "dcs_cutover": migrations.dcs_cutover,
    "v1": v1.v1,
    "identity": identity.identity,
    "many": objects.many,
    "hostile": objects.hostile,
}

SCENARIOS[sys.argv[1]]()
print("ok")
