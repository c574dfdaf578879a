# The table of floors: which folders a folder may include and link, and which foreign libraries it uses.
# tests/lint/includes.py reads this file, so that there is one table.

set(SKERRY_FOLDERS base proto tailnet net cluster dns relay api lighthouse agent cli)

set(SKERRY_MAY_base)
set(SKERRY_MAY_proto base)
set(SKERRY_MAY_tailnet base proto)
set(SKERRY_MAY_net base proto)
set(SKERRY_MAY_cluster base proto tailnet net)
set(SKERRY_MAY_dns base net)
set(SKERRY_MAY_relay base net)
set(SKERRY_MAY_api base proto tailnet net cluster)
set(SKERRY_MAY_lighthouse base proto tailnet net cluster dns relay api)
set(SKERRY_MAY_agent base proto net dns relay)
set(SKERRY_MAY_cli base proto net)

set(SKERRY_EXT_base sodium jansson yaml)
set(SKERRY_EXT_proto protobuf-c)
set(SKERRY_EXT_tailnet)
set(SKERRY_EXT_net uv openssl nghttp2 llhttp zlib)
set(SKERRY_EXT_cluster raft lmdb)
set(SKERRY_EXT_dns)
set(SKERRY_EXT_relay)
set(SKERRY_EXT_api)
set(SKERRY_EXT_lighthouse)
set(SKERRY_EXT_agent mnl nftables systemd)
set(SKERRY_EXT_cli qrencode)
