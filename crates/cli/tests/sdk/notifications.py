"""Webhooks."""
import hashlib
import hmac
import json
import os

from common import bucket, client, code_of, E, request, s3, serve, until, wait


def notifications():
    """Webhooks receive the end of tasks: signed, retried, once per end."""
    sdk, oms = client()
    a, b = s3(E["WEED_A"]), s3(E["WEED_B"])
    src, dst = bucket(a, "smn-from"), bucket(b, "smn-to")
    a.put_object(Bucket=src, Key="k", Body=b"v")
    received = []

    def hook(request, body):
        want = hmac.new(b"hush", body, hashlib.sha256).hexdigest()
        received.append((request.headers.get("X-Whimbrel-Signature") == want, json.loads(body)))
        return (500, {}, b"not now") if len(received) == 1 else (200, {}, b"")
    at = serve(hook)
    with open(E["CONFIG"], "a") as f:
        f.write('\n[[notify]]\ntopic = "ops"\nwebhook = "http://%s/hook?x=1"\nsecret = "hush"\n' % at)
    os.kill(int(E["SERVICE_PID"]), 1)

    def smn(*conditions):
        return sdk.SmnConfig(topic_urn="urn:smn:here:%s:ops" % E["PROJECT"], language="en-us",
                             trigger_conditions=list(conditions))

    def create(**fields):
        return oms.create_task(request(sdk, ("weed-a", src), ("weed-b", dst), **fields)).id

    def accepted():
        try:
            return create(smn_config=smn("SUCCESS", "FAILURE"))
        except Exception as e:
            assert e.error_code == "OMS.0157", e
    made = until(accepted)
    wait(sdk, oms, made, {5})

    def told():
        return oms.show_task(sdk.ShowTaskRequest(task_id=made)).smn_info
    # The task may be over a moment before its notification is sent.
    first = until(lambda: told() if told() and told().topic_name else None)
    assert (first.notify_result, first.notify_error_message, first.topic_name) == (False, "OMS.0156", "ops"), first
    info = until(lambda: told() if told().notify_result else None, 60)
    assert info.notify_error_message == "", info
    assert len(received) == 2 and all(signed for signed, _ in received), received
    assert received[1][1]["about"] == str(made) and received[1][1]["variables"]["Task_Status"] == "succeeded", received
    quiet = create(smn_config=smn("FAILURE"), object_overwrite_mode="FULL_OVERWRITE")
    wait(sdk, oms, quiet, {5})
    assert oms.show_task(sdk.ShowTaskRequest(task_id=quiet)).smn_info is None and len(received) == 2
    unknown = sdk.SmnConfig(topic_urn="urn:smn:here:p:nobody", trigger_conditions=["SUCCESS"])
    assert code_of(lambda: create(smn_config=unknown)) == (400, "OMS.0157")
