"""`python -m nodes.executor --config node.toml`."""

import sys

from nodes.executor.process import main

if __name__ == "__main__":
    sys.exit(main())
