"""Metrics for systems outside: InfluxDB, Sasquatch, and `lsst.verify`'s documents."""
