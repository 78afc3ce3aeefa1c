"""Configuration, read once at start and passed on by constructors.

`ClusterConfig` (genesis.json) is equal at every member and hashed; `NodeConfig` (node.toml) is local.
A value of these classes is valid; `ConfigError` names the field, the problem and the fix.
"""

from nodes.config.checks import ConfigError
from nodes.config.cluster import ClusterConfig, Member, Parameters, check_members
from nodes.config.node import Admission, HttpsFiles, KeyFiles, Listen, NodeConfig, Timeouts

__all__ = [
    "Admission",
    "ClusterConfig",
    "ConfigError",
    "HttpsFiles",
    "KeyFiles",
    "Listen",
    "Member",
    "NodeConfig",
    "Parameters",
    "Timeouts",
    "check_members",
]
