"""`openstack.maas` of 2018, which speaks v1 with a token: create, show, list, count."""
import collections
import collections.abc
import os
import time

# It was written for a Python that had these names here.
for name in ("MutableMapping", "Mapping", "Iterable", "Callable", "Sequence"):
    if not hasattr(collections, name):
        setattr(collections, name, getattr(collections.abc, name))

E = os.environ
E["OS_MAAS_ENDPOINT_OVERRIDE"] = "%s/v1/%s" % (E["ENDPOINT"], E["PROJECT"])

from openstack import connection  # noqa: E402

maas = connection.Connection(auth_token=E["TOKEN"], auth_url=E["ENDPOINT"] + "/v3").maas
store = {"ak": E["STORE_AK"], "sk": E["STORE_SK"]}
made = maas.create_task(
    src_node=dict(store, region="weed-a", bucket=E["FROM"], cloud_type="AWS", object_key={"path": "", "keys": []}),
    dst_node=dict(store, region="weed-b", bucket=E["TO"], object_key="/"),
    enableKMS=False, thread_num=5)
assert isinstance(made.id, int), made
deadline = time.time() + 120
while maas.get_task(made.id).status in (1, 2):
    assert time.time() < deadline, "the task does not end"
    time.sleep(0.05)
ended = maas.get_task(made.id)
assert (ended.status, ended.success_num, ended.fail_num) == (5, int(E["COUNT"]), 0), ended
assert [t.id for t in maas.tasks(start=0, limit=10)] == [made.id]
assert maas.task_count() == 1 and maas.task_count(state=3) == 0
