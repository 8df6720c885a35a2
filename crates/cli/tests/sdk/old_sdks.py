"""SDKs of before, each in a process of its own: their packages have the names of the current ones."""
import json
import os
import subprocess
import sys

from common import bucket, E, raw, s3, STORE_AK, STORE_SK

COUNT = 40


def run(script, **more):
    a, b = s3(E["WEED_A"]), s3(E["WEED_B"])
    src, dst = bucket(a, script + "-from"), bucket(b, script + "-to")
    for i in range(COUNT):
        a.put_object(Bucket=src, Key="k%02d" % i, Body=os.urandom(100000))
    at = os.path.join(os.path.dirname(os.path.abspath(__file__)), "old", script + ".py")
    env = dict(os.environ, PYTHONPATH=E["WHIMBREL_TEST_OLD_SDK"], FROM=src, TO=dst, COUNT=str(COUNT),
               STORE_AK=STORE_AK, STORE_SK=STORE_SK, **more)
    subprocess.run([sys.executable, at], check=True, env=env)


def sdk_of_2018():
    ask = {"auth": {"identity": {"methods": ["hw_ak_sk"], "hw_ak_sk": {
        "access": {"key": E["AK"]}, "secret": {"key": E["SK"]}}}, "scope": {"project": {"id": E["PROJECT"]}}}}
    status, _, headers = raw("POST", "/v3/auth/tokens", json.dumps(ask).encode(), sign=False)
    assert status == 201
    run("maas", TOKEN=headers["X-Subject-Token"])


def sdk_3_0_60():
    run("oms")
