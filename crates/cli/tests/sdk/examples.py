"""The programs of the folder `examples`, as users run them."""
import os
import subprocess

from common import bucket, E, listing, s3, STORE_AK, STORE_SK

FOLDER = os.path.abspath(os.path.join(os.path.dirname(os.path.abspath(__file__)), "../../../../examples"))


def examples():
    a, b = s3(E["WEED_A"]), s3(E["WEED_B"])
    src = bucket(a, "examples-from")
    for i in range(10):
        a.put_object(Bucket=src, Key="k%d" % i, Body=os.urandom(1000))
    for command in (["python3", "create_task.py"], ["node", "create_task.js"], ["bash", "create-task.sh"]):
        dst = bucket(b, "examples-to")
        env = dict(
            os.environ, NODE_PATH=E["NODE_MODULES"], WHIMBREL_ENDPOINT=E["ENDPOINT"], WHIMBREL_PROJECT=E["PROJECT"],
            WHIMBREL_AK=E["AK"], WHIMBREL_SK=E["SK"], SOURCE_REGION="weed-a", SOURCE_BUCKET=src, TARGET_REGION="weed-b",
            TARGET_BUCKET=dst, WHIMBREL_SOURCE_ACCESS_KEY=STORE_AK, WHIMBREL_SOURCE_SECRET_KEY=STORE_SK,
            WHIMBREL_TARGET_ACCESS_KEY=STORE_AK, WHIMBREL_TARGET_SECRET_KEY=STORE_SK)
        done = subprocess.run(command, cwd=FOLDER, env=env, capture_output=True, text=True)
        assert done.returncode == 0, (command, done.stdout, done.stderr)
        assert "status 5: 10 of 10 objects, 0 failed" in done.stdout, (command, done.stdout)
        copied = {k: v for k, v in listing(b, dst).items() if not k.startswith("oms/")}
        assert copied == listing(a, src), (command, copied)
