"""`python -m nodes.replica --config node.toml`."""

from nodes.replica.main import main

if __name__ == "__main__":
    raise SystemExit(main())
