"""The rules of the documents, made executable: an observer at every boundary and at the link's door."""

from chimney.verifier.catalogue import Rule, catalogue
from chimney.verifier.checks import checked_rules
from chimney.verifier.verifier import Mode, Verifier
from chimney.verifier.violation import RuleViolation, VerificationError, Violation

__all__ = [
    "Mode",
    "Rule",
    "RuleViolation",
    "VerificationError",
    "Verifier",
    "Violation",
    "catalogue",
    "checked_rules",
]
