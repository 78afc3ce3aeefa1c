"""Run a node's gateway: `python -m nodes.gateway --config node.toml`."""

from nodes.gateway.server import main

if __name__ == "__main__":
    main()
