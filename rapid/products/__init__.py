"""Products: the files that pipelines and gathers make, in a directory or a bucket."""
