"""From ordered blocks to committed state: one block is one database transaction.

`Executor` (executor.py) is the whole of it, used in the replica's own process or through
`nodes.executor.process`. Deliberately elsewhere: what the order is (`nodes.core`), what operations
mean (the application's `StateMachine`), signing what was executed (`nodes.replica`).
"""
