"""tritower: Kubeflow Pipelines components that rank jobs with a triple tower network."""

__version__ = "0.1.0"
