"""What of a request goes into the audit log: what it changed, or that it was refused, and who it was from."""

from collections.abc import MutableMapping
from typing import Any

from service.api.connections import client_of
from service.api.principal import action_of, identity_of, refusal_of
from service.api.rate_limits import RateLimit
from service.rights.audit import AuditEntry, AuditLog, Outcome

#: Refused attempts of one address, key or user that get a line each: strangers must not push others out of
#: the log.
_MOST_REFUSED = "60/minute"
_LONGEST_TARGET = 300


class AuditTrail:
    """Writes the log. Its methods belong to one event loop."""

    def __init__(self, log: AuditLog | None) -> None:
        """`log` is the file; None: nothing is written."""
        self._log = log
        self._refused = RateLimit(_MOST_REFUSED)

    def note(self, scope: MutableMapping[str, Any], status: int, refused: str | None) -> None:
        """Write a line about a request, if it is one to write about.

        Args:
            scope: that of the request, when it was answered.
            status: the HTTP status of the answer.
            refused: why it was refused before any route was asked; None: it was not.
        """
        if self._log is None:
            return
        identity, action = identity_of(scope), action_of(scope)
        outcome: Outcome = "done" if status < 400 else "refused" if status in (401, 403, 429) else "failed"
        reason = refused or refusal_of(scope) or (identity.suspicion if identity.principal is None else None)
        if action is None and (reason is None or outcome != "refused"):
            return
        address, principal = client_of(scope), identity.principal
        who = address if principal is None else f"user {principal.name} {principal.key_id}"
        if outcome == "refused" and self._refused.count(who) is not None:
            return
        self._log.write(
            AuditEntry(
                action or "request",
                outcome,
                who=None if principal is None else principal.name,
                key_id=None if principal is None else principal.key_id,
                via=identity.via,
                address=address,
                target=f"{scope['method']} {scope['path'][:_LONGEST_TARGET]}",
                reason=None if outcome == "done" else reason,
                status=status,
            )
        )
