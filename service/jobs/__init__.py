"""What clients start: indexing runs in processes of their own, a queue that outlives the server, uploads.

Nothing here knows HTTP.
"""
