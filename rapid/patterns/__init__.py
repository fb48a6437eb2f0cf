"""Patterns: which detectors are processed, and how that moves from exposure to exposure.

Pure: cameras and expressions in, sets of detector numbers out. Who keeps the pattern in force and those saved by
name is `rapid.control`; who asks, once for each exposure, is the head.
"""

from rapid.patterns.catalogue import BuiltIn
from rapid.patterns.errors import PatternError
from rapid.patterns.listing import describe_patterns, list_patterns
from rapid.patterns.pattern import Pattern, check_saved_name, parse_pattern, pattern_of
from rapid.patterns.visits import HeaderFlag, VisitMode, is_guaranteed, means_yes, phase_of

__all__ = [
    "BuiltIn",
    "HeaderFlag",
    "Pattern",
    "PatternError",
    "VisitMode",
    "check_saved_name",
    "describe_patterns",
    "is_guaranteed",
    "list_patterns",
    "means_yes",
    "parse_pattern",
    "pattern_of",
    "phase_of",
]
