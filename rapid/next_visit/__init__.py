"""Announcements that exposures are coming: the summit's nextVisit. Nothing depends on them."""
