"""The payload ``lsst_pipeline``: somebody else's PipelineTasks on our image, their results like any payload's."""

import hashlib
import re
from collections.abc import Mapping
from typing import Any, ClassVar, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from payloads.lsst_pipeline.repository import INPUT_RUN, OUTPUT_RUN, Repository, middleware, open_repository
from payloads.lsst_pipeline.results import add_result, cpu_seconds
from payloads.plugin import Frame, PayloadConfig
from rapid.errors import PayloadError

InputKind = Literal["image", "mask", "variance", "header", "info", "metrics"]


class LsstPipelineConfig(PayloadConfig):
    """Which pipeline to run, what it reads and what is wanted of it."""

    pipeline: str = Field(
        min_length=1, description="Pipeline YAML: a path, resource://package/file.yaml or any URI of lsst-resources."
    )
    inputs: dict[str, InputKind] = Field(
        min_length=1,
        description="By dataset type: image, mask, variance (arrays), header, info, metrics (mappings).",
    )
    overrides: dict[str, dict[str, Any]] = Field(
        default_factory=dict, description="Configuration by task label and field; a dotted field reaches a subtask's."
    )
    outputs: tuple[str, ...] | None = Field(
        default=None, description="Dataset types to return; left out, all that no other task reads."
    )
    image: str | None = Field(
        default=None, description="Dataset type of an array that takes the place of the frame's image."
    )


class LsstPipeline:
    """Runs a pipeline of PipelineTasks on one detector.

    Mappings that tasks write become metrics, named ``{dataset type}_{key}``; tables become tables; arrays that are
    asked for become files. Adds ``lsst_n_quanta``, ``lsst_missing`` (outputs of tasks that found nothing to do) and
    ``lsst_{label}_cpu_s`` of each task, and notes the sha256 of the resolved pipeline among what was applied.

    Arrays are handed to tasks read-only. Dimensions may be exposure or visit, with detector or without.
    """

    name: ClassVar[str] = "lsst_pipeline"
    version: ClassVar[str] = "1"
    Config: ClassVar[type[PayloadConfig]] = LsstPipelineConfig

    def __init__(self, config: LsstPipelineConfig) -> None:
        self.config = config
        self._pipeline: Any = None
        self._sha256 = ""

    def run(self, frame: Frame) -> None:
        """Run the pipeline on the frame.

        Raises
        ------
        PayloadError
            Raised without the middleware, for a pipeline that cannot be read or needs what ``inputs`` does not give,
            and for a task that failed: the error says which.
        """
        lsst = middleware()
        pipeline = self._load(lsst)
        values = {name: _input_of(frame, kind) for name, kind in self.config.inputs.items()}
        with open_repository(frame) as repository:
            graph = self._resolve(pipeline, repository, values)
            clone = repository.butler.clone(collections=[INPUT_RUN], run=OUTPUT_RUN)
            executor_class = lsst.pipe.base.simple_pipeline_executor.SimplePipelineExecutor
            try:
                executor = executor_class.from_pipeline_graph(graph, butler=clone)
                quanta = executor.run(register_dataset_types=True, save_versions=False)
            except (Exception, SystemExit) as error:
                # Whatever a task raises is its failure on this image; the cause keeps its traceback. A task that exits
                # would take the worker's child along, and be tried again.
                message = f"the pipeline {self.config.pipeline} failed: {type(error).__name__}: {error}"
                raise PayloadError(message, pipeline=self.config.pipeline) from error
            if not quanta:
                raise PayloadError(
                    f"the pipeline {self.config.pipeline} has nothing to do on one image of one detector"
                )
            frame.metrics["lsst_n_quanta"] = len(quanta)
            self._collect(frame, graph, repository)
        labels = ",".join(pipeline.task_labels)
        frame.applied.append(f"lsst_pipeline {labels} sha256:{self._sha256[:16]}")

    def _load(self, lsst: Any) -> Any:
        """Return the pipeline with the overrides, read once."""
        if self._pipeline is not None:
            return self._pipeline
        try:
            pipeline = lsst.pipe.base.Pipeline.from_uri(self.config.pipeline)
            for label, fields in self.config.overrides.items():
                if label not in pipeline.task_labels:
                    known = ", ".join(sorted(pipeline.task_labels))
                    raise PayloadError(f"overrides: the pipeline has no task {label} (known: {known})")
                for field, value in fields.items():
                    pipeline.addConfigOverride(label, field, value)
            for label in pipeline.task_labels:
                # Logs go where ours go; as datasets they would need files.
                pipeline.addConfigOverride(label, "saveLogOutput", False)
            pipeline.to_graph()
        except PayloadError:
            raise
        except Exception as error:
            # A file that is not there, YAML, a class that cannot be imported, a field that does not exist.
            message = f"the pipeline {self.config.pipeline} cannot be used: {type(error).__name__}: {error}"
            raise PayloadError(message, pipeline=self.config.pipeline) from error
        self._pipeline = pipeline
        self._sha256 = hashlib.sha256(str(pipeline).encode()).hexdigest()
        return pipeline

    def _resolve(self, pipeline: Any, repository: Repository, values: Mapping[str, Any]) -> Any:
        """Return the pipeline's graph, its inputs stored."""
        try:
            graph = pipeline.to_graph(registry=repository.butler.registry)
        except Exception as error:
            raise PayloadError(f"the pipeline {self.config.pipeline} cannot be resolved: {error}") from error
        needed = dict(graph.iter_overall_inputs())
        lacking = sorted(set(needed) - set(values))
        if lacking:
            raise PayloadError(
                f"the pipeline reads {', '.join(lacking)}: name what it is under inputs "
                f"(now: {', '.join(sorted(values))})",
                lacking=lacking,
            )
        unused = sorted(set(values) - set(needed))
        if unused:
            raise PayloadError(
                f"inputs: the pipeline does not read {', '.join(unused)}, but {', '.join(sorted(needed))}"
            )
        for name, node in needed.items():
            try:
                repository.put(node, values[name])
            except Exception as error:
                message = f"inputs: {name} cannot be given as {node.storage_class_name}: {error}"
                raise PayloadError(message) from error
        return graph

    def _collect(self, frame: Frame, graph: Any, repository: Repository) -> None:
        produced = {name: node for name, node in graph.dataset_types.items() if graph.producer_of(name) is not None}
        ends = [
            name
            for name in produced
            if not list(graph.consumers_of(name)) and not name.endswith(("_config", "_metadata", "_log"))
        ]
        wanted = ends if self.config.outputs is None else list(self.config.outputs)
        if self.config.image is not None and self.config.image not in wanted:
            wanted.append(self.config.image)
        unknown = sorted(set(wanted) - set(produced))
        if unknown:
            raise PayloadError(
                f"the pipeline does not write {', '.join(unknown)} (it writes {', '.join(sorted(ends))})"
            )
        missing = []
        for name in wanted:
            found = repository.outputs(name)
            if not found:
                missing.append(name)
            elif name == self.config.image:
                frame.image = _image_of(name, found[0])
            else:
                add_result(frame, name, found[0], is_asked_for=self.config.outputs is not None)
        frame.metrics["lsst_missing"] = ", ".join(missing) or None
        for label in graph.tasks:
            for metadata in repository.outputs(f"{label}_metadata"):
                frame.metrics[f"lsst_{re.sub(r'[^A-Za-z0-9_]', '_', label)}_cpu_s"] = cpu_seconds(metadata)


def _input_of(frame: Frame, kind: InputKind) -> Any:
    """Return what a pipeline reads of a frame; arrays as read-only views."""
    if kind == "header":
        return {str(key): value for key, value in frame.header.items()}
    if kind == "info":
        return frame.info.model_dump(mode="json")
    if kind == "metrics":
        return dict(frame.metrics)
    plane: NDArray[Any] | None = getattr(frame, kind)
    if plane is None:
        raise PayloadError(f"inputs: the frame has no {kind}: put isr or assemble before lsst_pipeline")
    view = plane.view()
    view.flags.writeable = False
    return view


def _image_of(name: str, value: Any) -> NDArray[np.float32]:
    image = np.asarray(value)
    if image.ndim != 2 or image.dtype.kind not in "fiu":
        raise PayloadError(f"{name} is no image: {image.dtype} of shape {image.shape}")
    return np.ascontiguousarray(image, dtype=np.float32)
