"""Pictures to zoom into: the tiles of a mosaic, and a detector at full resolution."""
