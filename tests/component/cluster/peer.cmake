skerry_test(test_peer_three SOURCES test_peer_three.c node.c node_child.c LIBS cluster TIMEOUT 180)
skerry_test(test_peer_damage SOURCES test_peer_damage.c node.c node_child.c LIBS cluster TIMEOUT 180)
skerry_test(test_peer_members SOURCES test_peer_members.c node.c node_child.c LIBS cluster TIMEOUT 240)
skerry_test(test_peer_refused SOURCES test_peer_refused.c node.c node_child.c LIBS cluster TIMEOUT 180)
