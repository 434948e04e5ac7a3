enisle -C low  init --side low  --name outside
enisle -C high init --side high --name island
enisle -C high identity > high.id;  enisle -C low  pair high.id
enisle -C low  identity > low.id;   enisle -C high pair low.id
enisle keygen --no-passphrase --out alice.key                          # also writes alice.key.pub
enisle keygen --no-passphrase --out bob.key
enisle -C high person add alice --role approver --key alice.key.pub
enisle -C high person add bob   --role approver --key bob.key.pub
enisle -C low  collect -f enisle.yaml
id=$(enisle -C low pack --to media --quiet)                           # stdout: the shipment's id, nothing else
enisle verify media --site high                                        # or any directory holding the trust root
enisle -C high import media
enisle -C high inspect "$id"
enisle -C high approve "$id" --as alice --key alice.key
enisle -C high approve "$id" --as bob   --key bob.key
enisle -C high release "$id" --channel stable
