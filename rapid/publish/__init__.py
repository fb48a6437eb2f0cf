"""Publish: what others read of us, in their formats: RubinTV's bucket and cluster status, ConsDB rows, metric sinks."""
