"""Who may do what: scopes, keys, the users of a proxy, and the log of what they changed. Knows no HTTP."""
