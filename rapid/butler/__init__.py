"""The observatory's Butler: a repository's raws and our results in it. Needs the extra ``rapid-analysis[butler]``."""
