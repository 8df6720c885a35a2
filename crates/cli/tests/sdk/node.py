"""The official Node.js SDK."""
import os
import subprocess

from common import bucket, E, s3


def node():
    a, b = s3(E["WEED_A"]), s3(E["WEED_B"])
    src, dst = bucket(a, "node-from"), bucket(b, "node-to")
    for i in range(60):
        a.put_object(Bucket=src, Key="k%02d" % i, Body=os.urandom(200000))
    script = os.path.join(os.path.dirname(os.path.dirname(os.path.abspath(__file__))), "node", "core.js")
    subprocess.run(["node", script], check=True, env=dict(os.environ, FROM=src, TO=dst, COUNT="60"))
