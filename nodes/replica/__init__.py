"""One replica: the loop in which clock, disk, sockets and the core meet.

`loop` obeys the core's `Ready`; `clients` speaks with clients (what they may ask: `admission`, what
they get: `replies`, `reads`); `executor_port` hands blocks to the executor; `status` and `metrics`
say how it goes; `main` puts it together. Agreement itself is `nodes.core`, bytes are `nodes.wire`.
"""
