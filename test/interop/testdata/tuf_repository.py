"""Makes repositories with python-tuf: one that is good, and what may become of it.

usage: tuf_repository.py DIRECTORY. Below it, each scenario has metadata/ and
targets/; the names of those that must be refused begin with "refuse-".
"""
import copy
import datetime
import hashlib
import os
import sys

from securesystemslib.signer import CryptoSigner, Key
from tuf.api.metadata import (DelegatedRole, Delegations, MetaFile, Metadata, Role, Root, Snapshot, TargetFile, Targets, Timestamp)

LATER = datetime.datetime.now(datetime.timezone.utc).replace(microsecond=0) + datetime.timedelta(days=30)
PAST = datetime.datetime(2020, 1, 1, tzinfo=datetime.timezone.utc)
CONTENT = b'{"rules": "one"}\n'


class Repository:
    def __init__(self):
        self.keys = {r: [CryptoSigner.generate_ecdsa() for _ in range(n)]
                     for r, n in (("root", 3), ("targets", 2), ("snapshot", 1), ("timestamp", 1), ("rules", 1))}
        self.root = Root(expires=LATER, consistent_snapshot=True)
        for role, threshold in (("root", 2), ("targets", 2), ("snapshot", 1), ("timestamp", 1)):
            for k in self.keys[role]:
                self.root.add_key(k.public_key, role)
            self.root.roles[role].threshold = threshold
        self.roots = []
        self.targets = Targets(expires=LATER)
        self.targets.targets["rules.json"] = TargetFile.from_data("rules.json", CONTENT, ["sha256"])
        delegated = self.keys["rules"][0].public_key
        self.targets.delegations = Delegations(
            keys={delegated.keyid: delegated},
            roles={"rules": DelegatedRole("rules", [delegated.keyid], 1, False, paths=["more/*"])})
        self.rules = Targets(expires=LATER)
        self.rules.targets["more/x.json"] = TargetFile.from_data("more/x.json", CONTENT, ["sha256"])
        self.snapshot = Snapshot(expires=LATER, meta={"targets.json": MetaFile(1), "rules.json": MetaFile(1)})
        self.timestamp = Timestamp(expires=LATER, snapshot_meta=MetaFile(1))
        self.content = CONTENT
        self.add_root(self.keys["root"])

    def signed(self, role, signers):
        md = Metadata(copy.deepcopy(role))
        for s in signers:
            md.sign(s, append=True)
        return md.to_bytes()

    def add_root(self, signers):
        self.roots.append(self.signed(self.root, signers))

    def bump(self):
        """The next version of everything but the root."""
        self.targets.version += 1
        self.snapshot.version += 1
        self.snapshot.meta["targets.json"].version = self.targets.version
        self.timestamp.version += 1
        self.timestamp.snapshot_meta.version = self.snapshot.version

    def write(self, directory):
        meta, targets = os.path.join(directory, "metadata"), os.path.join(directory, "targets")
        os.makedirs(meta)
        os.makedirs(os.path.join(targets, "more"))

        def put(name, data):
            with open(os.path.join(meta, name), "wb") as f:
                f.write(data)
        for i, r in enumerate(self.roots):
            put(f"{i + 1}.root.json", r)
        put(f"{self.targets.version}.targets.json", self.signed(self.targets, self.keys["targets"]))
        put(f"{self.rules.version}.rules.json", self.signed(self.rules, self.keys["rules"]))
        put(f"{self.snapshot.version}.snapshot.json", self.signed(self.snapshot, self.keys["snapshot"]))
        put("timestamp.json", self.signed(self.timestamp, self.keys["timestamp"]))
        sum256 = hashlib.sha256(CONTENT).hexdigest()
        for name in (f"{sum256}.rules.json", f"more/{sum256}.x.json"):
            with open(os.path.join(targets, name), "wb") as f:
                f.write(self.content)


def main(top):
    def scenario(name, change):
        r = copy.deepcopy(base)
        change(r)
        r.write(os.path.join(top, name))

    base = Repository()
    base.bump()
    base.write(os.path.join(top, "base"))
    for name, change in SCENARIOS.items():
        scenario(name, change)


def newer(r):
    r.bump()


def rotate(r, signers=None, lose=1):
    old = r.keys["root"]
    fresh = [CryptoSigner.generate_ecdsa() for _ in range(3)]
    for k in old[:lose]:
        r.root.revoke_key(k.public_key.keyid, "root")
    for k in fresh:
        r.root.add_key(k.public_key, "root")
    r.root.version += 1
    r.add_root(signers(old, fresh) if signers else old + fresh)
    r.keys["root"] = old[lose:] + fresh
    r.bump()


def twice(r):
    rotate(r)
    rotate(r)


def lost_online_key(r):
    r.root.revoke_key(r.keys["timestamp"][0].public_key.keyid, "timestamp")
    r.keys["timestamp"] = [CryptoSigner.generate_ecdsa()]
    r.root.add_key(r.keys["timestamp"][0].public_key, "timestamp")
    r.root.version += 1
    r.add_root(r.keys["root"])
    r.bump()


def stolen_online_key(r):
    """The old timestamp key goes on signing after it was revoked."""
    old = r.keys["timestamp"]
    lost_online_key(r)
    r.keys["timestamp"] = old


def few(r):
    rotate(r, lambda old, fresh: old[:1] + fresh)


def few_new(r):
    rotate(r, lambda old, fresh: old[:1] + old[1:2], lose=3)


def same_key_twice(r):
    """One key under two ids counts for a threshold of two."""
    k = r.keys["targets"][0]
    double = copy.deepcopy(k.public_key)
    double.keyid = "0" * 64
    r.root.keys[double.keyid] = double
    r.root.roles["targets"].keyids = [k.public_key.keyid, double.keyid]
    r.root.version += 1
    r.add_root(r.keys["root"])
    again = CryptoSigner(k._private_key, double)
    r.keys["targets"] = [k, again]
    r.bump()


def rollback(r):
    r.timestamp.version -= 1


def rollback_snapshot(r):
    r.timestamp.version += 1
    r.snapshot.version -= 1
    r.timestamp.snapshot_meta.version = r.snapshot.version


def rollback_targets(r):
    r.bump()
    r.targets.version = 1
    r.snapshot.meta["targets.json"].version = 1


def expired(r):
    r.bump()
    r.timestamp.expires = PAST


def expired_root(r):
    r.root.expires = PAST
    rotate(r)


def one_signature(r):
    r.keys["targets"] = r.keys["targets"][:1]
    r.bump()


def stranger(r):
    r.keys["snapshot"] = [CryptoSigner.generate_ecdsa()]
    r.bump()


def gap(r):
    r.root.version += 1
    rotate(r)


def mixed(r):
    """A snapshot that promises another version of targets."""
    r.bump()
    r.snapshot.meta["targets.json"].version += 1


def wrong_target(r):
    r.bump()
    r.content = b'{"rules": "two"}\n'


SCENARIOS = {
    "follow-newer": newer, "follow-rotated": rotate, "follow-rotated-twice": twice, "follow-lost-online-key": lost_online_key,
    "refuse-stolen-online-key": stolen_online_key, "refuse-too-few-old-signatures": few, "refuse-too-few-new-signatures": few_new,
    "refuse-same-key-twice": same_key_twice, "refuse-rollback": rollback, "refuse-rollback-snapshot": rollback_snapshot,
    "refuse-rollback-targets": rollback_targets, "refuse-expired": expired, "refuse-expired-root": expired_root,
    "refuse-one-signature": one_signature, "refuse-stranger": stranger, "refuse-gap-of-versions": gap, "refuse-mixed": mixed,
    "refuse-wrong-target": wrong_target,
}

if __name__ == "__main__":
    main(sys.argv[1])
