"""Follows a repository with python-tuf.

usage: tuf_client.py DIRECTORY ROOT URL TARGET. Prints the target.
"""
import os
import sys

from tuf.ngclient import Updater

directory, root, url, target = sys.argv[1:]
os.makedirs(directory, exist_ok=True)
with open(root, "rb") as f:
    trusted = f.read()
u = Updater(metadata_dir=directory, metadata_base_url=url + "/metadata/", target_base_url=url + "/targets/",
            target_dir=directory, bootstrap=trusted)
u.refresh()
info = u.get_targetinfo(target)
with open(u.download_target(info), "rb") as f:
    sys.stdout.buffer.write(f.read())
