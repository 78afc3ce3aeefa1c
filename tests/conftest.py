"""What all tests share: the databases to test on (tests/databases.py)."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

pytest_plugins = ["databases"]
