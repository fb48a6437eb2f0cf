"""Run a pipeline of the LSST Science Pipelines' middleware, of PipelineTasks, on a detector's image."""
