"""The HTTPS interface of a node, for any application: `app.create_app`, run by `python -m nodes.gateway`.

A gateway holds nothing that matters: operations are signed by their authors, answers carry proofs, and its
only way to a replica is `nodes.client`. An application adds its routes by an `ApplicationRouter`.
"""
