"""Trends: every number of the calibrations over months, and alarms when one changes."""
