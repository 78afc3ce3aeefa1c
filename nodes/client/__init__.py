"""A client of a cluster: `nodes.client.aio.Client` (asyncio) and `nodes.client.sync.Client` (blocking), same names.

It sends to every replica and believes q of them. `core` is the whole logic without I/O; `errors` is what
can come of a call. Knows no application: operations and queries are bytes, or dicts encoded as JSON.
"""
